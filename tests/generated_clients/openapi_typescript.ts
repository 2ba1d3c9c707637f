// Debits an account and reads its balance with openapi-fetch and the types that openapi-typescript makes.
import createClient from "openapi-fetch";
import type { paths, webhooks } from "./client/schema";

const { API_URL, API_KEY, ACCOUNT, IDEMPOTENCY_KEY } = process.env as Record<string, string>;
const client = createClient<paths>({ baseUrl: API_URL, headers: { "x-api-key": API_KEY } });

type Granted = webhooks["credits.granted"]["post"]["requestBody"]["content"]["application/json"];
export const granted = (event: Granted): string => event.object.amount_minor_units;

async function main(): Promise<void> {
  const id = { id: ACCOUNT };
  const body = { amount: "30", reference: "openapi-typescript", idempotency_key: IDEMPOTENCY_KEY };
  await client.POST("/v1/customer-credits/accounts/{id}/debit", { params: { path: id }, body });
  const now = await client.GET("/v1/customer-credits/accounts/{id}/balance", { params: { path: id } });
  const then = await client.GET("/v1/customer-credits/accounts/{id}/balance", {
    params: { path: id, query: { at: "2100-01-01T00:00:00Z" } },
  });
  console.log(
    JSON.stringify({
      balance: now.data?.balance,
      updated_at: Date.parse(now.data?.updated_at ?? ""),
      now_as_of: now.data?.as_of ?? null,
      later: then.data?.balance,
      later_as_of: Date.parse(then.data?.as_of ?? ""),
    }),
  );
}

void main();
