/** One attempt to deliver a message by NATS. Never rejects. */
import { headers, type NatsConnection } from '@nats-io/transport-node';
import type { Message } from './page.ts';
import type { SendOutcome } from './webhook.ts';

const NATS_ANSWER_MS = 5000;

/** On `<target>.<site>`; a stream that captures it drops repeats by `Nats-Msg-Id`. Resolves when the server has it. */
export async function publishPage(
  nats: NatsConnection,
  target: string,
  message: Message,
): Promise<SendOutcome> {
  try {
    const of = headers();
    of.set('Nats-Msg-Id', message.id);
    nats.publish(`${target}.${message.site}`, message.body, { headers: of });
    const late = Promise.withResolvers<never>();
    const timer = setTimeout(() => late.reject(new Error('NATS did not answer')), NATS_ANSWER_MS);
    await Promise.race([nats.flush(), late.promise]).finally(() => clearTimeout(timer));
    return { outcome: 'delivered' };
  } catch (error) {
    return { outcome: 'refused', reason: (error as Error).message, final: false, retryAfterMs: null };
  }
}
