/** From payload bytes to values, by MQTT 5 content type. Pure, and total: it throws {@link Unusable} alone (H). */
import { decodeCbor } from './cbor.ts';
import { type Decoded, Unusable } from './decoded.ts';
import { decodeMsgpack } from './msgpack.ts';

export const CONTENT_TYPES =
  'application/json, application/msgpack, application/cbor, text/plain, application/protobuf, application/senml+json, application/senml+cbor';

type Format = 'json' | 'msgpack' | 'cbor' | 'text' | 'protobuf' | 'senml-json' | 'senml-cbor';

const formats: ReadonlyMap<string, Format> = new Map<string, Format>([
  ['application/json', 'json'],
  ['text/json', 'json'],
  ['application/msgpack', 'msgpack'],
  ['application/vnd.msgpack', 'msgpack'],
  ['application/x-msgpack', 'msgpack'],
  ['application/cbor', 'cbor'],
  ['text/plain', 'text'],
  ['application/protobuf', 'protobuf'],
  ['application/x-protobuf', 'protobuf'],
  ['application/vnd.google.protobuf', 'protobuf'],
  ['application/senml+json', 'senml-json'],
  ['application/senml+cbor', 'senml-cbor'],
]);

/**
 * @param contentType as the message has it, parameters such as `; charset=utf-8` included
 * @throws Unusable when nobody knows it; the reason names those that are known
 */
export function formatOf(contentType: string): Format {
  const format = formats.get(contentType) ?? formats.get(contentType.split(';', 1)[0]!.trim().toLowerCase());
  if (format) return format;
  throw new Unusable(`content type "${contentType.slice(0, 60)}" is not known: expected ${CONTENT_TYPES}`);
}

export const isPack = (format: Format): boolean => format === 'senml-json' || format === 'senml-cbor';

/** @throws Unusable */
export function decodePayload(payload: Uint8Array, format: Exclude<Format, 'protobuf'>): Decoded {
  if (payload.length === 0) throw new Unusable('payload is empty');
  switch (format) {
    case 'json':
    case 'senml-json':
      return decodeJson(payload);
    case 'text':
      return decodePlainText(payload);
    case 'msgpack':
      return decodeMsgpack(payload);
    case 'cbor':
    case 'senml-cbor':
      return decodeCbor(payload);
  }
}

const utf8 = new TextDecoder('utf-8', { fatal: true });

function textOf(payload: Uint8Array): string {
  let text: string;
  try {
    text = utf8.decode(payload);
  } catch {
    throw new Unusable('payload is not UTF-8 text');
  }
  if (text.trim() === '') throw new Unusable('payload is empty');
  return text;
}

/** A bare word such as `online` is common for status topics, and taken as text. @throws Unusable */
export function decodeJson(payload: Uint8Array): Decoded {
  const text = textOf(payload);
  try {
    return JSON.parse(text);
  } catch (error) {
    if (/^[A-Za-z][A-Za-z0-9 _-]{0,63}$/.test(text) && !NO_VALUE.test(text)) return text;
    throw new Unusable(`payload is not JSON: ${(error as Error).message}`);
  }
}

/** What programs print where there is no number. */
const NO_VALUE = /^[+-]?(nan|inf|infinity|undefined)$/i;
const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;

/** JSON, or a number as people write it, or just text. */
function decodePlainText(payload: Uint8Array): Decoded {
  const text = textOf(payload).trim();
  try {
    return JSON.parse(text);
  } catch (error) {
    if (NUMBER.test(text)) return Number(text);
    if (NO_VALUE.test(text)) throw new Unusable(`payload "${text}" is no value`);
    if (/^[[{"]/.test(text)) throw new Unusable(`payload is not JSON: ${(error as Error).message}`);
    return text;
  }
}
