/** Captured and documented messages of every profile show up right, through the batch as it leaves the gateway. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { compileMapping } from '../../../edge-gateway/mapping/compile.ts';
import { profileNames, readMappingFile } from '../../../edge-gateway/mapping/mapping-file.ts';
import { tryMapping } from '../../../edge-gateway/mapping/try-mapping.ts';
import { RECEIVED_AT } from '../frames.ts';

interface Fixture {
  readonly source: string;
  readonly topic: string;
  readonly payload: string;
  readonly encoding?: BufferEncoding;
  readonly contentType?: string;
  readonly becomes?: readonly object[];
  /** A pattern of the reason. */
  readonly setAside?: string;
}

const folder = new URL('fixtures/', import.meta.url);
const mappingText = `
profiles:
  - zigbee2mqtt
  - profile: tasmota
    timeZone: Europe/Berlin
  - profile: shelly
    base: home
  - owntracks
  - profile: senml
    topics: ["packs/#"]
`;
const file = readMappingFile(mappingText, 'fixtures');
assert.ok(file.ok, JSON.stringify(file));
const mapping = compileMapping(file.config);

test('every profile has its fixtures', () => {
  const files = readdirSync(folder).sort();
  assert.deepEqual(files, profileNames.map(name => `${name}.json`).sort());
});

for (const name of profileNames) {
  const { messages } = JSON.parse(readFileSync(new URL(`${name}.json`, folder), 'utf8')) as {
    messages: Fixture[];
  };
  test(`${name}: ${messages.length} messages`, () => {
    for (const { source, topic, payload, encoding, contentType, becomes, setAside } of messages) {
      const what = `${topic} ${payload} (${source})`;
      const { readings, setAside: reason } = tryMapping(mapping, {
        topic,
        payload: Buffer.from(payload, encoding ?? 'utf8'),
        receivedAt: RECEIVED_AT,
        properties: contentType === undefined ? undefined : { contentType },
      });
      if (setAside === undefined) {
        assert.equal(reason, null, what);
        assert.deepEqual(readings, becomes, what);
      } else {
        assert.match(reason ?? 'taken', new RegExp(setAside), what);
        assert.deepEqual(readings, [], what);
      }
    }
  });
}
