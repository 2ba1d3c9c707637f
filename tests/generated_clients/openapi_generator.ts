// Debits an account and reads its balance through the client that openapi-generator makes for TypeScript.
import { AccountsApi, Configuration } from "./client";

const { API_URL, API_KEY, ACCOUNT, IDEMPOTENCY_KEY } = process.env as Record<string, string>;
const accounts = new AccountsApi(new Configuration({ basePath: API_URL, apiKey: API_KEY }));

async function main(): Promise<void> {
  const movement = { amount: "30", reference: "typescript", idempotencyKey: IDEMPOTENCY_KEY };
  await accounts.debitCustomerCreditsAccount({ id: ACCOUNT, movement });
  const now = await accounts.getCustomerCreditsAccountBalance({ id: ACCOUNT });
  const then = await accounts.getCustomerCreditsAccountBalance({ id: ACCOUNT, at: new Date("2100-01-01T00:00:00Z") });
  console.log(
    JSON.stringify({
      balance: now.balance,
      updated_at: now.updatedAt?.getTime(),
      now_as_of: now.asOf ?? null,
      later: then.balance,
      later_as_of: then.asOf?.getTime(),
    }),
  );
}

void main();
