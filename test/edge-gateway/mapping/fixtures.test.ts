/** Captured and documented messages of every profile show up right, through the batch as it leaves the gateway. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import type { MessageProperties } from '../../../edge-gateway/log/frame-properties.ts';
import { compileMapping } from '../../../edge-gateway/mapping/compile.ts';
import { profileNames, readMappingFile } from '../../../edge-gateway/mapping/mapping-file.ts';
import { birthCertificate } from '../../../edge-gateway/mapping/sparkplug/certificate.ts';
import { readerOfTexts } from '../../../edge-gateway/mapping/sparkplug/certificate-reader.ts';
import { decodeSparkplug } from '../../../edge-gateway/mapping/sparkplug/payload.ts';
import { parseTopic, topicKey } from '../../../edge-gateway/mapping/sparkplug/topic.ts';
import { tryMapping } from '../../../edge-gateway/mapping/try-mapping.ts';
import { RECEIVED_AT } from '../frames.ts';

interface Fixture {
  readonly source: string;
  readonly topic: string;
  readonly payload: string;
  readonly encoding?: BufferEncoding;
  readonly contentType?: string;
  /** The payload of the birth that a Sparkplug data message belongs to, in the same encoding. */
  readonly birth?: string;
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
  - sparkplug
`;
const file = readMappingFile(mappingText, 'fixtures');
assert.ok(file.ok, JSON.stringify(file));
const { config } = file;

/** Mapping and properties of a fixture, as if its birth had come before it. */
function withBirth({ topic, birth, encoding, contentType }: Fixture) {
  const properties: MessageProperties = contentType === undefined ? {} : { contentType };
  if (birth === undefined) return { mapping: compileMapping(config), properties };
  const key = topicKey(parseTopic(topic.split('/'))!);
  const { id, text } = birthCertificate(key, decodeSparkplug(Buffer.from(birth, encoding)));
  const mapping = compileMapping(config, readerOfTexts(new Map([[id, text]])));
  return { mapping, properties: { ...properties, reference: id } };
}

test('every profile has its fixtures', () => {
  const files = readdirSync(folder).sort();
  assert.deepEqual(files, profileNames.map(name => `${name}.json`).sort());
});

for (const name of profileNames) {
  const { messages } = JSON.parse(readFileSync(new URL(`${name}.json`, folder), 'utf8')) as {
    messages: Fixture[];
  };
  test(`${name}: ${messages.length} messages`, () => {
    for (const fixture of messages) {
      const { source, topic, payload, encoding, becomes, setAside } = fixture;
      const { mapping, properties } = withBirth(fixture);
      const what = `${topic} ${payload} (${source})`;
      const { readings, setAside: reason } = tryMapping(mapping, {
        topic,
        payload: Buffer.from(payload, encoding ?? 'utf8'),
        receivedAt: RECEIVED_AT,
        properties,
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
