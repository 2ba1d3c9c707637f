// Drives all fifteen operations through the official TypeScript client, and says what came of each as one JSON object.
// Run by test_official_sdk.py:  SDK_DIRECTORY=… SERVER_URL=… API_KEY=… node official_sdk.mjs
import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";

const require = createRequire(path.join(process.env.SDK_DIRECTORY, "any.js"));
const load = (name) => import(pathToFileURL(require.resolve(name)).href);
const { Creem } = await load("creem");
const { CustomerCreditsErrorResponseDto } = await load("creem/models/errors");

const credits = new Creem({
  apiKey: process.env.API_KEY,
  serverURL: process.env.SERVER_URL,
  retryConfig: { strategy: "none" },
}).customerCredits;

const refused = async (promise) => {
  try {
    await promise;
    return { status: "accepted" };
  } catch (error) {
    const typed = error instanceof CustomerCreditsErrorResponseDto;
    const body = typed ? { error: error.error } : JSON.parse(error.body);
    return { typed, status: error.statusCode, code: body.error.code, param: body.error.param };
  }
};
const all = async (iterator) => {
  const items = [];
  for await (const page of await iterator) items.push(...page.result.data);
  return items;
};

const huge = "9".repeat(200);
const seen = {};

// 1 create, 3 get, 2 list
const wallet = await credits.createAccount({ customerId: "ann", name: "Wallet", unitLabel: "tokens", initialBalance: "300" });
const spare = await credits.createAccount({ customerId: "ann" });
const names = [];
for (let number = 0; number < 5; number += 1) {
  names.push((await credits.createAccount({ customerId: "bob", name: `n${number}` })).id);
}
seen.created = { wallet, spare };
seen.sameName = await refused(credits.createAccount({ customerId: "ann", name: " WALLET " }));
seen.read = await credits.getAccount(wallet.id);
seen.listed = (await all(credits.listAccounts(2, "bob"))).map((account) => account.id);
seen.names = names;

// 8 credit, 9 debit
const key = { amount: huge, reference: "order", idempotencyKey: "credit" };
const credit = await credits.creditAccount(wallet.id, key);
seen.credit = credit;
seen.creditAgain = (await credits.creditAccount(wallet.id, key)).id;
seen.otherBody = await refused(credits.creditAccount(wallet.id, { ...key, reference: "other" }));
const debit = await credits.debitAccount(wallet.id, { amount: "100", reference: "use", idempotencyKey: "debit" });
seen.debit = debit;
seen.tooMuch = await refused(credits.debitAccount(spare.id, { amount: "1", reference: "use", idempotencyKey: "over" }));
seen.badAmount = await refused(credits.debitAccount(spare.id, { amount: "1.5", reference: "use", idempotencyKey: "bad" }));

// 4 balance, now and at a moment
seen.balance = await credits.getAccountBalance(wallet.id);
seen.balanceAt = await credits.getAccountBalance(wallet.id, wallet.createdAt);
seen.balanceBefore = await credits.getAccountBalance(wallet.id, "2001-01-01T00:00:00Z");

// 12 post, 14 get, 13 by reference
const entries = [
  { accountId: wallet.id, side: "debit", amount: "7" },
  { accountId: spare.id, side: "credit", amount: "4" },
  { accountId: names[0], side: "credit", amount: "3" },
];
const posted = await credits.postTransaction({ reference: "gift", idempotencyKey: "post", entries });
seen.posted = posted;
seen.postedAgain = (await credits.postTransaction({ reference: "gift", idempotencyKey: "post", entries })).id;
seen.unbalanced = await refused(
  credits.postTransaction({ reference: "gift", idempotencyKey: "unbalanced", entries: entries.slice(0, 2) }),
);
seen.transaction = await credits.getTransaction(posted.id);
seen.byReference = await credits.listTransactionsByReference("gift");

// 10 and 15 reverse
const undone = await credits.reverseTransaction(wallet.id, { transactionId: debit.id });
seen.undone = undone;
seen.undoneAgain = (await credits.reverseTransactionById(debit.id)).id;
seen.undoneWhole = await credits.reverseTransactionById(posted.id);
seen.undoReversal = await refused(credits.reverseTransactionById(undone.id));
seen.notItsOwn = await refused(credits.reverseTransaction(spare.id, { transactionId: debit.id }));

// 5 entries
seen.entries = (await all(credits.listEntries(wallet.id, 2))).map((entry) => [entry.side, entry.amount]);

// 6 freeze, 7 unfreeze, 11 close
seen.states = [
  (await credits.freezeAccount(wallet.id)).status,
  (await credits.unfreezeAccount(wallet.id)).status,
  (await credits.closeAccount(spare.id)).status,
];
seen.notFrozen = await refused(credits.unfreezeAccount(wallet.id));
seen.closed = await refused(credits.creditAccount(spare.id, { amount: "1", reference: "r", idempotencyKey: "late" }));
seen.unknown = await refused(credits.getAccount("cca_unknown"));
seen.unknownTransaction = await refused(credits.getTransaction("cct_unknown"));

console.log(JSON.stringify(seen));
