/**
 * Which Protobuf message a payload is: by its content type's parameter, else by its topic, else the only one there is.
 * Pure.
 */
import { type Decoded, Unusable } from './decoded.ts';
import { decodeProtobuf } from './protobuf-decode.ts';
import type { ProtoSchema } from './protobuf-schema.ts';
import { matchTopic, parsePattern, type TopicPattern } from './topic-pattern.ts';

/** One entry of `protobuf:` in the mapping file, with its schema read. Plain data. */
export interface ProtobufEntry {
  readonly message: string;
  readonly topic?: string | undefined;
  readonly schema: ProtoSchema;
}

export interface ProtobufReader {
  /** Whether messages of the topic are Protobuf also when they do not say so. */
  isOnTopic(levels: readonly string[]): boolean;
  /** @throws Unusable */
  read(payload: Uint8Array, contentType: string, topic: string): Decoded;
}

/** `messageType` of Spring and others, `proto` of Prometheus; application/protobuf itself registers none. */
const PARAMETER = /;\s*(?:messagetype|proto)\s*=\s*"?([^";\s]+)"?/i;

export function newProtobufReader(entries: readonly ProtobufEntry[]): ProtobufReader {
  const onTopics: { pattern: TopicPattern; entry: ProtobufEntry }[] = [];
  const elsewhere: ProtobufEntry[] = [];
  for (const entry of entries) {
    if (entry.topic === undefined) elsewhere.push(entry);
    else onTopics.push({ pattern: parsePattern(entry.topic), entry });
  }

  const onTopic = (levels: readonly string[]): ProtobufEntry | undefined =>
    onTopics.find(({ pattern }) => matchTopic(pattern, levels))?.entry;

  function entryOf(contentType: string, topic: string): ProtobufEntry {
    if (entries.length === 0) {
      throw new Unusable('a Protobuf payload needs its schema: name it below protobuf: in the mapping file');
    }
    const asked = PARAMETER.exec(contentType)?.[1]?.replace(/^\./, '');
    if (asked !== undefined) {
      const named = entries.find(({ message }) => message === asked);
      if (named) return named;
      throw new Unusable(
        `the Protobuf message "${asked.slice(0, 100)}" is none of those below protobuf: in the mapping file`,
      );
    }
    const found = onTopic(topic.split('/')) ?? (elsewhere.length === 1 ? elsewhere[0] : undefined);
    if (found) return found;
    throw new Unusable(
      'which Protobuf message it is cannot be told: give the topic below protobuf: in the mapping file, or send the content type application/protobuf; messageType="…"',
    );
  }

  return {
    isOnTopic: levels => onTopic(levels) !== undefined,
    read(payload, contentType, topic) {
      const { schema, message } = entryOf(contentType, topic);
      return decodeProtobuf(payload, schema, message);
    },
  };
}
