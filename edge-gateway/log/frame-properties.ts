/**
 * What MQTT 5 says beside a payload, as bytes of a frame. Pure.
 *
 *    0  u16  length of this block
 *    2  u8   expiry (bit 0), content type (bit 1), user properties (bit 2), user properties left out (bit 3),
 *            reference (bit 4)
 *    3       u32 expiry, seconds
 *            u16 length, then the content type
 *            u16 count, then for each user property twice u16 length and text: name, value
 *            u16 length, then the reference
 *
 * All little-endian and UTF-8, each part only when its bit says so. Bounded (invariant F): user properties beyond
 * {@link USER_PROPERTIES_BYTES_MAX} are left out as a whole, which the block says, so that a mapping that needs one
 * refuses the message instead of guessing; a content type is cut, and then is none that anybody knows.
 */
export interface MessageProperties {
  readonly contentType?: string;
  /** In the order they came; a name may come several times. */
  readonly userProperties?: readonly (readonly [name: string, value: string])[];
  /** There were more bytes of user properties than are kept. */
  readonly userPropertiesLeftOut?: true;
  /** Seconds after arrival that the sender gave the message, as the broker passed them on. */
  readonly messageExpirySeconds?: number;
  /**
   * What it takes to read the message later, found when it arrived: the id of a Sparkplug birth. Never from the packet, so
   * that no device can give one.
   */
  readonly reference?: string;
}

export const CONTENT_TYPE_BYTES_MAX = 256;
export const USER_PROPERTIES_BYTES_MAX = 4096;
export const REFERENCE_BYTES_MAX = 64;
/** Length field, bits, expiry, three more length fields. */
const FIXED_BYTES = 2 + 1 + 4 + 2 + 2 + 2;
export const PROPERTIES_BYTES_MAX =
  FIXED_BYTES + CONTENT_TYPE_BYTES_MAX + USER_PROPERTIES_BYTES_MAX + REFERENCE_BYTES_MAX;

const EXPIRY = 1;
const CONTENT_TYPE = 2;
const USER = 4;
const LEFT_OUT = 8;
const REFERENCE = 16;

/**
 * The part of an MQTT packet's properties that is kept, within its bounds.
 * @returns undefined when there is nothing to keep
 */
export function keepProperties(packet: {
  readonly contentType?: string | undefined;
  readonly userProperties?: Readonly<Record<string, string | readonly string[]>> | undefined;
  readonly messageExpiryInterval?: number | undefined;
}): MessageProperties | undefined {
  const { contentType, userProperties, messageExpiryInterval } = packet;
  if (contentType === undefined && userProperties === undefined && messageExpiryInterval === undefined) {
    return undefined;
  }
  const pairs: [string, string][] = [];
  for (const name in userProperties) {
    for (const value of [userProperties[name]!].flat()) pairs.push([name, value]);
  }
  const tooMany = userPropertiesBytes(pairs) > USER_PROPERTIES_BYTES_MAX;
  return {
    ...(contentType !== undefined && { contentType: cut(contentType) }),
    ...(pairs.length > 0 && (tooMany ? { userPropertiesLeftOut: true } : { userProperties: pairs })),
    ...(messageExpiryInterval !== undefined && { messageExpirySeconds: messageExpiryInterval }),
  };
}

const userPropertiesBytes = (pairs: readonly (readonly [string, string])[]): number =>
  pairs.reduce((sum, [name, value]) => sum + 4 + Buffer.byteLength(name) + Buffer.byteLength(value), 0);

/** At most {@link CONTENT_TYPE_BYTES_MAX} bytes, whole characters. */
function cut(text: string): string {
  let shorter = text.slice(0, CONTENT_TYPE_BYTES_MAX).toWellFormed();
  while (Buffer.byteLength(shorter) > CONTENT_TYPE_BYTES_MAX) shorter = shorter.slice(0, -1).toWellFormed();
  return shorter;
}

/** Bytes that {@link encodeProperties} may need. */
export function propertiesBytesAtMost({ contentType, userProperties, reference }: MessageProperties): number {
  let bytes = FIXED_BYTES + 3 * ((contentType?.length ?? 0) + (reference?.length ?? 0));
  for (const [name, value] of userProperties ?? []) bytes += 4 + 3 * (name.length + value.length);
  return bytes;
}

/**
 * @returns the length of the block
 * @throws RangeError when it would be longer than a frame may hold; {@link keepProperties} sees to that before
 */
export function encodeProperties(buffer: Buffer, offset: number, properties: MessageProperties): number {
  const { contentType, userProperties, userPropertiesLeftOut, messageExpirySeconds, reference } = properties;
  let end = offset + 3;
  let bits = userPropertiesLeftOut ? LEFT_OUT : 0;
  const text = (value: string) => {
    const bytes = buffer.write(value, end + 2, 'utf8');
    if (bytes > 0xffff) throw new RangeError(`a property of ${bytes} bytes`);
    end = buffer.writeUInt16LE(bytes, end) + bytes;
  };
  if (messageExpirySeconds !== undefined) {
    bits |= EXPIRY;
    end = buffer.writeUInt32LE(messageExpirySeconds, end);
  }
  if (contentType !== undefined) {
    bits |= CONTENT_TYPE;
    text(contentType);
  }
  if (userProperties !== undefined) {
    bits |= USER;
    end = buffer.writeUInt16LE(userProperties.length, end);
    for (const [name, value] of userProperties) {
      text(name);
      text(value);
    }
  }
  if (reference !== undefined) {
    bits |= REFERENCE;
    text(reference);
  }
  const length = end - offset;
  if (length > PROPERTIES_BYTES_MAX) throw new RangeError(`properties of ${length} bytes`);
  buffer.writeUInt16LE(length, offset);
  buffer.writeUInt8(bits, offset + 2);
  return length;
}

export const propertiesBytesAt = (buffer: Buffer, offset: number): number => buffer.readUInt16LE(offset);

/** The properties at `offset` of a frame whose checksum was found right. */
export function decodeProperties(buffer: Buffer, offset: number): MessageProperties {
  const bits = buffer.readUInt8(offset + 2);
  let next = offset + 3;
  const text = (): string => {
    const start = next + 2;
    next = start + buffer.readUInt16LE(next);
    return buffer.toString('utf8', start, next);
  };
  const properties: { -readonly [Key in keyof MessageProperties]: MessageProperties[Key] } = {};
  if (bits & EXPIRY) {
    properties.messageExpirySeconds = buffer.readUInt32LE(next);
    next += 4;
  }
  if (bits & CONTENT_TYPE) properties.contentType = text();
  if (bits & USER) {
    const count = buffer.readUInt16LE(next);
    next += 2;
    properties.userProperties = Array.from({ length: count }, () => [text(), text()] as const);
  }
  if (bits & LEFT_OUT) properties.userPropertiesLeftOut = true;
  if (bits & REFERENCE) properties.reference = text();
  return properties;
}
