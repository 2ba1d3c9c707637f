// Verifies webhooks, as they were received, with the official client's own functions, and says what it made of each.
// Run by test_webhooks_received.py:  SDK_DIRECTORY=… node verify_webhooks.mjs < webhooks.json
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";

const require = createRequire(path.join(process.env.SDK_DIRECTORY, "any.js"));
const { constructWebhookEvent, constructWebhookEventEntity } = await import(
  pathToFileURL(require.resolve("creem/webhooks")).href
);

const attempt = async (made) => {
  try {
    return await made;
  } catch (error) {
    return { error: `${error.name}: ${error.message}` };
  }
};

const verified = [];
for (const { body, headers, secret, isTyped } of JSON.parse(readFileSync(0, "utf8"))) {
  const { "creem-signature": legacy, ...standard } = headers;
  verified.push({
    event: await attempt(constructWebhookEvent(body, headers, secret)),
    legacy: await attempt(constructWebhookEvent(body, { "creem-signature": legacy }, secret)),
    standard: await attempt(constructWebhookEvent(body, standard, secret)),
    forged: await attempt(constructWebhookEvent(body.replace("evt_", "evt-"), headers, secret)),
    entity: isTyped ? await attempt(constructWebhookEventEntity(body, headers, secret)) : null,
  });
}
console.log(JSON.stringify(verified));
