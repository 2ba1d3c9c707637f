// Manages webhooks through the official TypeScript client, and says what came of each as one JSON object.
// Run by test_webhooks_received.py:  SDK_DIRECTORY=… SERVER_URL=… API_KEY=… node official_webhooks.mjs
import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";

const require = createRequire(path.join(process.env.SDK_DIRECTORY, "any.js"));
const { Creem } = await import(pathToFileURL(require.resolve("creem")).href);

const { webhooks } = new Creem({
  apiKey: process.env.API_KEY,
  serverURL: process.env.SERVER_URL,
  retryConfig: { strategy: "none" },
});
const refused = async (promise) => {
  try {
    return await promise;
  } catch (error) {
    return { status: error.statusCode, code: JSON.parse(error.body).error.code };
  }
};

const url = "https://example.com/hook";
const seen = {};
seen.created = await webhooks.create({ url, name: "Billing", events: ["credits.granted"], deliveryMode: "http" });
const { id } = seen.created;
seen.everything = await webhooks.create({ url });
seen.read = await webhooks.get(id);
seen.updated = await webhooks.update(id, { name: null, status: "disabled", events: ["credits.consumed"] });
seen.listed = [];
for await (const page of await webhooks.list(1, 1)) seen.listed.push(...page.result.items.map((item) => item.id));
seen.deleted = await webhooks.delete(id);
seen.gone = await refused(webhooks.get(id));
seen.plain = await refused(webhooks.create({ url: "http://example.com/hook" }));
seen.foreign = await refused(webhooks.create({ url, events: ["checkout.completed"] }));
console.log(JSON.stringify(seen));
