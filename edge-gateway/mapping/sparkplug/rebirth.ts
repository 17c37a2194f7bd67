/** The one command that the gateway gives a node: be born again, as its births are needed. Pure. */

const NAME = 'Node Control/Rebirth';
const BOOLEAN = 11;

/** @returns the payload of an NCMD: `{ timestamp, metrics: [{ name, timestamp, datatype, boolean_value: true }] }` */
export function rebirthPayload(nowMs: number): Buffer {
  const time = varint(Math.trunc(nowMs));
  const name = Buffer.from(NAME);
  const metric = Buffer.concat([
    Buffer.of(0x0a, name.length),
    name,
    Buffer.of(0x18),
    time,
    Buffer.of(0x20, BOOLEAN, 0x70, 1),
  ]);
  return Buffer.concat([Buffer.of(0x08), time, Buffer.of(0x12, metric.length), metric]);
}

function varint(value: number): Buffer {
  const bytes: number[] = [];
  let rest = value;
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 128);
  bytes.push(rest);
  return Buffer.from(bytes);
}
