// What a sandbox may reach, as the unmodified JavaScript SDK says it. The server has a gateway in memory; what it
// was told is looked at by whoever started this.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Sandbox } from "@deno/sandbox";
import { outputOf, withSandbox } from "./support.mjs";

const VALUE = "sk-the-value-of-a-secret-0123456789";

/** The SDK logs failed upgrades; here they are expected. */
async function refused(options, message) {
  const { error } = console;
  console.error = () => {};
  try {
    await assert.rejects(Sandbox.create(options), { status: 400, code: "INVALID_SANDBOX_CONFIG", message });
  } finally {
    console.error = error;
  }
}

test("further keys of a secret pass through, and the variable holds a placeholder", async () => {
  const secrets = {
    API_KEY: {
      hosts: ["api.example"],
      value: VALUE,
      slots: ["header:x-token", "query:key"],
      methods: ["POST"],
      paths: ["/v1/**"],
      scrub: "always",
      expires: "2h",
      budget: { requests_per_min: 7 },
      placeholder_prefix: "sk-",
    },
  };
  await withSandbox({ allowNet: ["a.example:443"], secrets, labels: { from: "javascript" } }, async (sandbox) => {
    const seen = await outputOf(sandbox, "sh", ["-c", 'printf %s "$API_KEY"']);
    assert.match(seen, /^sk-[A-Za-z0-9_]{40,}$/);
    assert.notEqual(seen, VALUE);
  });
});

test("what can never work is refused in words without the value", async () => {
  const secret = { hosts: ["api.example"], value: VALUE };
  await refused({ allowNet: [], secrets: { K: secret } }, /allow_net: \[\] allows no connection/);
  await refused({ secrets: { K: { ...secret, slotz: [] } } }, /slotz/);
  await refused({ secrets: { K: { ...secret, value: "short" } } }, /K\.value/);
  await refused({ allowNet: ["*.com"] }, /\*\.com/);
});
