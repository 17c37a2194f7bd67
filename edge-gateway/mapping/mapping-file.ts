/**
 * The mapping file: YAML, checked whole before the gateway starts. Each problem says file, line, what is wrong and
 * what would be right. Pure but for reading it, and the Protobuf schemas that it names.
 */
import { readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { type Document, isMap, isNode, LineCounter, type Pair, parseDocument, type Scalar } from 'yaml';
import { z } from 'zod';
import { kinds } from '../../protocol/batch.ts';
import { limits } from '../../protocol/limits.ts';
import { timeUnits } from '../payload-time.ts';
import { formatOf } from './decode.ts';
import { Unusable } from './decoded.ts';
import { isTimeZone } from './local-time.ts';
import type { ProtobufEntry } from './protobuf.ts';
import { loadSchema, type SchemaOutcome } from './protobuf-schema.ts';
import { fillTemplate, parsePattern, type TopicPattern, templateFault } from './topic-pattern.ts';

export const profileNames = ['zigbee2mqtt', 'tasmota', 'shelly', 'owntracks', 'senml', 'sparkplug'] as const;

/** Options of a profile beside its name. */
const profileOptions: Record<(typeof profileNames)[number], readonly string[]> = {
  zigbee2mqtt: ['base'],
  tasmota: ['base', 'timeZone'],
  shelly: ['base'],
  owntracks: ['base'],
  senml: ['topics'],
  sparkplug: [],
};

/** A check that says what is wrong by throwing {@link Unusable}. */
const checked = (check: (text: string) => unknown) =>
  z
    .string()
    .min(1)
    .superRefine((text, context) => {
      try {
        check(text);
      } catch (error) {
        if (!(error instanceof Unusable)) throw error;
        context.addIssue({ code: 'custom', message: error.message });
      }
    });

const Pattern = checked(parsePattern);
const Base = z.string().regex(/^[^/+#{}]+(\/[^/+#{}]+)*$/, 'expected topic levels such as home/zigbee2mqtt');

const Profile = z.preprocess(
  entry => (typeof entry === 'string' ? { profile: entry } : entry),
  z
    .strictObject({
      profile: z.enum(profileNames),
      base: Base.optional(),
      topics: z.array(Pattern).max(64).optional(),
      timeZone: z
        .string()
        .refine(isTimeZone, 'not a time zone: expected a name such as Europe/Berlin or UTC')
        .optional(),
    })
    .superRefine((entry, context) => {
      for (const option of ['base', 'topics', 'timeZone'] as const) {
        const known = profileOptions[entry.profile];
        if (entry[option] === undefined || known.includes(option)) continue;
        const message = `the profile ${entry.profile} has no ${option}: expected ${known.join(', ') || 'no options'}`;
        context.addIssue({ code: 'custom', path: [option], message });
      }
    }),
);

const MetricName = z.string().min(1).max(limits.metricNameBytesMax);
const MetricList = z.array(MetricName).min(1).max(limits.metricsPerElementMax);

const OwnMapping = z
  .strictObject({
    topic: Pattern,
    /** Nothing of it is stored: metadata, commands. */
    ignore: z.literal(true).optional(),
    device: z.string().min(1).optional(),
    kind: z.enum(kinds).default('telemetry'),
    prefix: z.string().optional(),
    /** The metric's name when the payload is a bare value. */
    bareName: z.string().min(1).optional(),
    rename: z.record(MetricName, MetricName).optional(),
    only: MetricList.optional(),
    except: MetricList.optional(),
    time: z.strictObject({ field: MetricName, unit: z.enum(timeUnits).default('auto') }).optional(),
    deviceType: z
      .union([z.string().min(1), z.strictObject({ userProperty: z.string().min(1) })], {
        error: 'expected text, or userProperty: and the name of an MQTT 5 user property',
      })
      .optional(),
    contentType: checked(formatOf).optional(),
    /** Only messages whose user property `schema-version` is this one. */
    schemaVersion: z.string().min(1).optional(),
    /** Topics below this one are the device's own: receipts may go there. */
    receipts: z.string().min(1).optional(),
  })
  .superRefine((mapping, context) => {
    if (mapping.ignore) return;
    const problem = (path: string, message: string) =>
      context.addIssue({ code: 'custom', path: [path], message });
    const names = namesOf(mapping.topic);
    if (names === null) return;
    if (mapping.device === undefined) {
      return problem('device', 'missing: expected a name or a template such as "{line}-{device}"');
    }
    for (const key of ['device', 'prefix', 'bareName', 'receipts'] as const) {
      const fault = templateFault(mapping[key] ?? '', names);
      if (fault) problem(key, fault);
    }
    const text = fillTemplate(mapping.device, new Map());
    if (/[^A-Za-z0-9_.:-]/.test(text)) {
      problem('device', `"${text}": a device name has the characters A-Z a-z 0-9 _ . : -`);
    }
    if (mapping.only && mapping.except) problem('except', 'either only or except, not both');
    const fault = mapping.receipts === undefined ? null : receiptsFault(mapping.receipts, mapping.device);
    if (fault) problem('receipts', fault);
  });

/** Each device has to have a place of its own: what tells devices apart must tell these topics apart (S). */
function receiptsFault(receipts: string, device: string): string | null {
  const level = /^[^/+#{}]*(\{[^{}]*\}[^/+#{}]*)*$/;
  if (receipts.startsWith('$') || receipts.split('/').some(part => part === '' || !level.test(part))) {
    return 'expected topic levels such as factory/{line}/{device}, without wildcards or a slash at the end';
  }
  const missing = (device.match(/\{[^{}]*\}/g) ?? []).find(name => !receipts.split('/').includes(name));
  return missing === undefined
    ? null
    : `${missing} must be one of its levels, as the device is named after it: it would not be the device's own`;
}

function namesOf(topic: string): TopicPattern['names'] | null {
  try {
    return parsePattern(topic).names;
  } catch {
    return null;
  }
}

const Protobuf = z.strictObject({
  /** Path of a .proto file, from the mapping file's folder. */
  schema: z.string().min(1),
  /** Full name of the message. */
  message: z.string().min(1),
  /** Its messages are of this type when their content type says no more. */
  topic: Pattern.optional(),
});

const MappingFile = z.strictObject({
  profiles: z
    .array(Profile)
    .max(profileNames.length * 8)
    .default([]),
  mappings: z.array(OwnMapping).max(1000).default([]),
  protobuf: z.array(Protobuf).max(256).default([]),
});

/** Plain data, which may be handed to a worker thread. */
export interface MappingConfig extends Omit<z.output<typeof MappingFile>, 'protobuf'> {
  readonly protobuf?: readonly ProtobufEntry[];
  /** Where the gateway keeps the births of Sparkplug nodes; not of the file. */
  readonly birthsFolder?: string;
}
export type OwnMappingConfig = MappingConfig['mappings'][number];
export type ProfileConfig = MappingConfig['profiles'][number];

export type MappingFileOutcome =
  | { readonly ok: true; readonly config: MappingConfig }
  | { readonly ok: false; readonly problems: readonly string[] };

export const NO_MAPPING: MappingConfig = { profiles: [], mappings: [] };

/** The same mapping, for whoever reads the messages of a gateway with this data folder. */
export const inDataFolder = (config: MappingConfig, dataDirectory: string): MappingConfig => ({
  ...config,
  birthsFolder: join(dataDirectory, 'sparkplug'),
});

/** @returns the configuration, or a problem when the file cannot be read */
export function loadMappingFile(file: string): MappingFileOutcome {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    return { ok: false, problems: [`${file}: ${(error as Error).message}`] };
  }
  return readMappingFile(text, file);
}

/**
 * @param file the name for the problems; Protobuf schemas are looked for from its folder
 * @returns the configuration, or all problems as `file:line: …`
 */
export function readMappingFile(text: string, file: string): MappingFileOutcome {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const at = (offset: number) => `${file}:${lines.linePos(offset).line}`;
  if (document.errors.length > 0) {
    return { ok: false, problems: document.errors.map(({ pos, message }) => `${at(pos[0])}: ${message}`) };
  }
  let value: unknown;
  try {
    value = document.toJS({ maxAliasCount: 100 });
  } catch (error) {
    return { ok: false, problems: [`${file}:1: ${(error as Error).message}`] };
  }
  const parsed = MappingFile.safeParse(value ?? {});
  if (!parsed.success) {
    const problems = parsed.error.issues.flatMap(issue => describe(issue, document, at));
    return { ok: false, problems: [...new Set(problems)] };
  }
  const { protobuf, ...config } = parsed.data;
  if (protobuf.length === 0) return { ok: true, config };
  const read = readSchemas(protobuf, dirname(file), path => at(offsetOf(document, ['protobuf', ...path])));
  return read.ok ? { ok: true, config: { ...config, protobuf: read.entries } } : read;
}

/** @param at where a key of an entry stands, as `file:line` */
function readSchemas(
  configs: readonly z.output<typeof Protobuf>[],
  folder: string,
  at: (path: readonly PropertyKey[]) => string,
): { ok: true; entries: ProtobufEntry[] } | { ok: false; problems: string[] } {
  const loaded = new Map<string, SchemaOutcome>();
  const problems: string[] = [];
  const entries = configs.flatMap(({ schema: name, message, topic }, index): ProtobufEntry[] => {
    const path = resolve(folder, name);
    const outcome = loaded.get(path) ?? loadSchema(path, readText);
    loaded.set(path, outcome);
    if (!outcome.ok) {
      problems.push(`${at([index, 'schema'])}: protobuf.${index}.schema: ${outcome.problem}`);
      return [];
    }
    const known = Object.keys(outcome.schema.messages).filter(each => !each.startsWith('google.protobuf.'));
    if (!known.includes(message)) {
      const some = known.slice(0, 10).join(', ') || 'none';
      problems.push(
        `${at([index, 'message'])}: protobuf.${index}.message: ${name} has no message "${message}": it has ${some}`,
      );
      return [];
    }
    return [{ message, topic, schema: outcome.schema }];
  });
  return problems.length === 0 ? { ok: true, entries } : { ok: false, problems: [...new Set(problems)] };
}

const readText = (path: string): string => readFileSync(path, 'utf8');

function describe(issue: z.core.$ZodIssue, document: Document, at: (offset: number) => string): string[] {
  const where = issue.path.map(String).join('.');
  const named = (path: string) => (path === '' ? '' : `${path}: `);
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map(key => {
      const path = [...issue.path, key];
      const known = knownKeys(issue.path);
      return `${at(offsetOf(document, path))}: ${named(path.map(String).join('.'))}not known: expected ${known}`;
    });
  }
  const missing = issue.code === 'invalid_type' && issue.message.endsWith('received undefined');
  const message = missing ? `missing: expected ${issue.expected}` : issue.message;
  return [`${at(offsetOf(document, issue.path))}: ${named(where)}${message}`];
}

function knownKeys([first, , inner]: readonly PropertyKey[]): string {
  if (first === undefined) return Object.keys(MappingFile.shape).join(', ');
  if (first === 'profiles') return 'profile, base, topics, timeZone';
  if (first === 'protobuf') return Object.keys(Protobuf.shape).join(', ');
  if (inner === 'time') return 'field, unit';
  return Object.keys(OwnMapping.shape).join(', ');
}

/** Where the key of a path stands, or the innermost thing around it that is there. */
function offsetOf(document: Document, path: readonly PropertyKey[]): number {
  for (let length = path.length; length > 0; length--) {
    const container = length === 1 ? document.contents : document.getIn(path.slice(0, length - 1), true);
    const last = path[length - 1];
    if (isMap(container)) {
      const pair = container.items.find((item: Pair) => (item.key as Scalar | null)?.value === last);
      if (pair && isNode(pair.key) && pair.key.range) return pair.key.range[0];
    } else {
      const node = document.getIn(path.slice(0, length), true);
      if (isNode(node) && node.range) return node.range[0];
    }
  }
  return document.contents?.range?.[0] ?? 0;
}
