/**
 * `holdfast edge try-mapping`: prints what a captured message would become.
 * Exit codes: 0 readings or nothing to store, 1 set aside, 2 wrong options or mapping file.
 */
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { compileMapping } from './compile.ts';
import { Unusable } from './decoded.ts';
import { loadMappingFile, type MappingConfig, NO_MAPPING } from './mapping-file.ts';
import type { MappedMessage, Mapping } from './route.ts';
import { birthCertificate } from './sparkplug/certificate.ts';
import { readerOfTexts } from './sparkplug/certificate-reader.ts';
import { decodeSparkplug } from './sparkplug/payload.ts';
import { parseTopic, topicKey } from './sparkplug/topic.ts';
import { trialAsText, tryMapping } from './try-mapping.ts';

const USAGE = `holdfast edge try-mapping --topic TOPIC (--payload TEXT | --file FILE)
  --mapping FILE             the mapping file; otherwise HOLDFAST_MAPPING_FILE, or none
  --content-type TYPE        the message's MQTT 5 content type
  --user-property NAME=VALUE one of its user properties; may be given several times
  --birth FILE               the payload of the last NBIRTH or DBIRTH, for a Sparkplug data message with aliases
  --json                     prints JSON`;

/** @param args behind `try-mapping` */
export function tryMappingCommand(args: readonly string[]): void {
  const options = parsed(args);
  const config = readMapping(options.mapping ?? process.env.HOLDFAST_MAPPING_FILE);
  const trial = tryMapping(...withBirth(config, readMessage(options), options.birth));
  process.stdout.write(options.json ? `${JSON.stringify(trial, null, 2)}\n` : trialAsText(trial));
  process.exitCode = trial.setAside === null ? 0 : 1;
}

type Options = ReturnType<typeof parsed>;

function parsed(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      options: {
        mapping: { type: 'string' },
        topic: { type: 'string' },
        'content-type': { type: 'string' },
        'user-property': { type: 'string', multiple: true },
        payload: { type: 'string' },
        file: { type: 'string' },
        birth: { type: 'string' },
        json: { type: 'boolean', default: false },
      },
    }).values;
  } catch (error) {
    return fail(`${(error as Error).message}\n${USAGE}`);
  }
}

function readMapping(file: string | undefined): MappingConfig {
  if (file === undefined) return NO_MAPPING;
  const read = loadMappingFile(file);
  return read.ok ? read.config : fail(read.problems.join('\n'));
}

/** Mapping and message, as if the birth had come before it. */
function withBirth(
  config: MappingConfig,
  message: MappedMessage,
  file: string | undefined,
): [Mapping, MappedMessage] {
  if (file === undefined) return [compileMapping(config), message];
  const topic = parseTopic(message.topic.split('/'));
  if (topic === null) return fail(`--birth: ${message.topic} is no topic of Sparkplug data`);
  try {
    const { id, text } = birthCertificate(topicKey(topic), decodeSparkplug(readPayloadFile(file)));
    const reference = { properties: { ...message.properties, reference: id } };
    return [compileMapping(config, readerOfTexts(new Map([[id, text]]))), { ...message, ...reference }];
  } catch (error) {
    if (!(error instanceof Unusable)) throw error;
    return fail(`--birth ${file}: ${error.message}`);
  }
}

function readMessage(options: Options): MappedMessage {
  const { topic, payload, file, 'content-type': contentType, 'user-property': pairs } = options;
  if (topic === undefined || (payload === undefined) === (file === undefined)) fail(USAGE);
  const userProperties = pairs?.map((pair): [string, string] => {
    const end = pair.indexOf('=');
    return end > 0 ? [pair.slice(0, end), pair.slice(end + 1)] : fail(`--user-property ${pair}: NAME=VALUE`);
  });
  return {
    topic,
    payload: payload === undefined ? readPayloadFile(file!) : Buffer.from(payload),
    receivedAt: Date.now(),
    properties: {
      ...(contentType !== undefined && { contentType }),
      ...(userProperties && { userProperties }),
    },
  };
}

function readPayloadFile(file: string): Uint8Array {
  try {
    return readFileSync(file);
  } catch (error) {
    return fail((error as Error).message);
  }
}

function fail(message: string): never {
  process.stderr.write(`${message}\n`);
  process.exit(2);
}
