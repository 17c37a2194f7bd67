/**
 * MQTT 5 as the load generators speak it: one plain socket, frames made by hand, PUBACKs counted and not looked at any
 * further, so that the generator is not the bottleneck of what it measures.
 */
import { connect, type Socket } from 'node:net';
import mqttPacket from 'mqtt-packet';

/** Packet ids go from 1 to this. */
export const PACKET_IDS = 65_535;

export interface PlainConnection {
  readonly socket: Socket;
  /** PUBLISH without PUBACK that the broker takes at most. */
  readonly receiveMaximum: number;
}

/** PUBLISH of MQTT 5, QoS 1, without properties. Topic and payload are ASCII, below 16 KiB together. */
export function publishFrame(
  { topic, payload }: { readonly topic: string; readonly payload: string },
  packetId: number,
): Buffer {
  const remaining = 2 + topic.length + 2 + 1 + payload.length;
  const lengthBytes = remaining < 128 ? 1 : 2;
  const frame = Buffer.allocUnsafe(1 + lengthBytes + remaining);
  let offset = frame.writeUInt8(0x32, 0);
  if (lengthBytes === 1) offset = frame.writeUInt8(remaining, offset);
  else {
    offset = frame.writeUInt8((remaining & 127) | 128, offset);
    offset = frame.writeUInt8(remaining >> 7, offset);
  }
  offset = frame.writeUInt16BE(topic.length, offset);
  offset += frame.write(topic, offset, 'latin1');
  offset = frame.writeUInt16BE(packetId, offset);
  offset = frame.writeUInt8(0, offset);
  frame.write(payload, offset, 'latin1');
  return frame;
}

/**
 * Connects with a clean session. The process ends when the connection does.
 * @param onAcks is told how many PUBACKs came
 */
export async function connectPlain(
  url: string,
  clientId: string,
  onAcks: (count: number) => void,
): Promise<PlainConnection> {
  const { hostname, port, username, password } = new URL(url);
  const socket = connect(Number(port), hostname);
  socket.setNoDelay(true);
  socket.on('error', error => fail(`the broker at ${hostname}:${port}: ${error.message}`));
  socket.on('close', () => fail(`the broker at ${hostname}:${port} closed the connection`));
  const parser = mqttPacket.parser({ protocolVersion: 5 });
  const connack = await new Promise<mqttPacket.IConnackPacket>(resolve => {
    parser.on('packet', packet => {
      if (packet.cmd === 'connack') resolve(packet);
    });
    socket.on('data', chunk => parser.parse(chunk));
    socket.write(
      mqttPacket.generate({
        cmd: 'connect',
        protocolId: 'MQTT',
        protocolVersion: 5,
        clientId,
        clean: true,
        keepalive: 0,
        username: decodeURIComponent(username),
        password: Buffer.from(decodeURIComponent(password)),
      }),
    );
  });
  if (connack.reasonCode !== 0) fail(`the broker refused the connection: ${connack.reasonCode}`);
  socket.removeAllListeners('data');
  const count = newAckCounter();
  socket.on('data', chunk => onAcks(count(chunk)));
  return { socket, receiveMaximum: connack.properties?.receiveMaximum ?? PACKET_IDS };
}

function newAckCounter(): (chunk: Buffer) => number {
  let partial: Buffer = Buffer.alloc(0);
  return chunk => {
    const bytes = partial.length === 0 ? chunk : Buffer.concat([partial, chunk]);
    let offset = 0;
    let acks = 0;
    // Every packet we get has a length below 128: PUBACK of 4 bytes, or 5 and 6 with a reason.
    while (offset + 2 <= bytes.length) {
      const length = bytes[offset + 1]!;
      if (offset + 2 + length > bytes.length) break;
      if (bytes[offset] !== 0x40) fail(`the broker sent a packet of type ${bytes[offset]! >> 4}`);
      const reason = length > 2 ? bytes[offset + 4]! : 0;
      if (reason >= 0x80) fail(`the broker refused a message with reason ${reason}`);
      acks++;
      offset += 2 + length;
    }
    partial = bytes.subarray(offset);
    return acks;
  };
}

function fail(reason: string): never {
  console.error(reason);
  process.exit(1);
}
