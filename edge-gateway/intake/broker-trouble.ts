/** What a broker's refusal means to whoever configures the gateway. Pure. */
import type { IDisconnectPacket } from 'mqtt';

const BAD_CREDENTIALS = new Set([4, 5, 134, 135]);
const SESSION_TAKEN_OVER = 0x8e;

/** Another connection with the same client id has taken the session. */
export const isThrownOut = (packet: IDisconnectPacket): boolean => packet.reasonCode === SESSION_TAKEN_OVER;

/** The broker has answered, and said no. A connection that broke has a code of the system, which is a text. */
export const isRefusal = (error: Error & { code?: unknown }): boolean => typeof error.code === 'number';

export function brokerTrouble(error: Error & { code?: unknown }, url: string): string {
  const { host, username } = new URL(url);
  if (typeof error.code === 'number' && BAD_CREDENTIALS.has(error.code)) {
    const user = username === '' ? 'a client without a user name' : `user "${username}"`;
    return `the broker at ${host} refuses ${user} (${error.message}): check the user and password in HOLDFAST_MQTT_URL`;
  }
  const message = error.message || String(error.code);
  return `the broker at ${host} does not answer (${message}): check HOLDFAST_MQTT_URL and that the broker runs`;
}
