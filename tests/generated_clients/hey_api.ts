// Debits an account and reads its balance through the client that hey-api makes; its types have the events, too.
import { debitCustomerCreditsAccount, getCustomerCreditsAccountBalance } from "./client";
import { client } from "./client/client.gen";
import type { ReceiveCreditsGrantedWebhookPayload } from "./client/types.gen";

const { API_URL, API_KEY, ACCOUNT, IDEMPOTENCY_KEY } = process.env as Record<string, string>;
client.setConfig({ baseUrl: API_URL, auth: API_KEY });

export const granted = (event: ReceiveCreditsGrantedWebhookPayload): string => event.object.amount_minor_units;

async function main(): Promise<void> {
  const path = { id: ACCOUNT };
  const body = { amount: "30", reference: "hey-api", idempotency_key: IDEMPOTENCY_KEY };
  await debitCustomerCreditsAccount({ path, body, throwOnError: true });
  const { data: now } = await getCustomerCreditsAccountBalance({ path, throwOnError: true });
  const query = { at: "2100-01-01T00:00:00Z" };
  const { data: then } = await getCustomerCreditsAccountBalance({ path, query, throwOnError: true });
  console.log(
    JSON.stringify({
      balance: now.balance,
      updated_at: Date.parse(now.updated_at ?? ""),
      now_as_of: now.as_of ?? null,
      later: then.balance,
      later_as_of: Date.parse(then.as_of ?? ""),
    }),
  );
}

void main();
