/**
 * The headers of a webhook by Standard Webhooks 1.0.0 (https://www.standardwebhooks.com): HMAC-SHA256 over
 * `id.timestamp.body`, so that a receiver can tell who sent it, that nobody changed it, and that it is not an old one
 * sent again.
 */
import { createHmac } from 'node:crypto';
import { secretBytes } from './channel.ts';

/** @param nowMs of this attempt: a receiver refuses what is some minutes off */
export function signatureHeaders(
  message: { readonly id: string; readonly body: string },
  secret: string,
  nowMs: number,
): Record<'webhook-id' | 'webhook-timestamp' | 'webhook-signature', string> {
  const timestamp = String(Math.floor(nowMs / 1000));
  const digest = createHmac('sha256', secretBytes(secret))
    .update(`${message.id}.${timestamp}.${message.body}`)
    .digest('base64');
  return {
    'webhook-id': message.id,
    'webhook-timestamp': timestamp,
    'webhook-signature': `v1,${digest}`,
  };
}
