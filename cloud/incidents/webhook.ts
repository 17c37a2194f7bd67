/**
 * One attempt to deliver a message by HTTP. The answer's status is all that counts: redirects are not followed, and the
 * body is not kept. Never rejects.
 */
import { request as requestHttp } from 'node:http';
import { request as requestHttps } from 'node:https';
import type { Message } from './page.ts';
import { namesPrivateAddress, publicLookup } from './private-addresses.ts';
import { signatureHeaders } from './signature.ts';

export type SendOutcome =
  | { readonly outcome: 'delivered' }
  | {
      readonly outcome: 'refused';
      readonly reason: string;
      /** The receiver says that it will never take it. */
      readonly final: boolean;
      /** The receiver asks for this much patience; null when it does not. */
      readonly retryAfterMs: number | null;
    };

/** From the first byte to the answer's end. */
const ATTEMPT_MS = 10_000;
const RETRY_AFTER_MAX_MS = 3_600_000;
const GONE = 410;

export function sendWebhook(options: {
  url: string;
  secret: string;
  message: Message;
  allowPrivate: boolean;
  nowMs: number;
  attemptMs?: number;
}): Promise<SendOutcome> {
  const { message, allowPrivate, attemptMs = ATTEMPT_MS } = options;
  const url = new URL(options.url);
  if (!allowPrivate && namesPrivateAddress(url)) {
    return Promise.resolve(
      refused(`${url.hostname} is a private address; HOLDFAST_WEBHOOK_PRIVATE=allow takes it`),
    );
  }
  const body = Buffer.from(message.body);
  return new Promise(resolve => {
    const request = (url.protocol === 'https:' ? requestHttps : requestHttp)(url, {
      method: 'POST',
      agent: false,
      ...(allowPrivate ? {} : { lookup: publicLookup }),
      headers: {
        'content-type': 'application/json',
        'content-length': body.length,
        'user-agent': 'holdfast',
        ...signatureHeaders(message, options.secret, options.nowMs),
      },
    });
    const timer = setTimeout(() => {
      resolve(refused(`no answer within ${attemptMs / 1000} s`));
      request.destroy();
    }, attemptMs);
    request.on('close', () => {
      clearTimeout(timer);
      resolve(refused('the connection was closed without an answer'));
    });
    request.on('error', error => resolve(refused(error.message || String(error))));
    request.on('response', response => {
      const status = response.statusCode ?? 0;
      response.on('error', () => {});
      response.resume();
      if (status >= 200 && status < 300) return resolve({ outcome: 'delivered' });
      const retryAfter = Number(response.headers['retry-after'] ?? Number.NaN) * 1000;
      resolve({
        outcome: 'refused',
        reason: `status ${status}`,
        final: status === GONE,
        retryAfterMs: retryAfter > 0 ? Math.min(retryAfter, RETRY_AFTER_MAX_MS) : null,
      });
    });
    request.end(body);
  });
}

const refused = (reason: string): SendOutcome => ({
  outcome: 'refused',
  reason,
  final: false,
  retryAfterMs: null,
});
