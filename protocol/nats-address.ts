/** NATS addresses with the credentials in the URL, which the client library wants apart. */
export interface NatsAddress {
  readonly servers: string[];
  readonly user?: string;
  readonly pass?: string;
  readonly tls?: object;
}

export const NATS_ADDRESS_RULE = 'nats://user:password@host:port (tls:// for TLS), several with commas';

export const isNatsAddress = (urls: string): boolean =>
  urls.split(',').every(text => {
    const url = URL.canParse(text.trim()) ? new URL(text.trim()) : null;
    return url !== null && ['nats:', 'tls:'].includes(url.protocol) && url.hostname !== '';
  });

/**
 * @param urls `nats://user:password@host:port`, several with commas; the first one's credentials serve all. `tls:`
 *   asks for TLS.
 * @throws TypeError when one is not a URL
 */
export function natsAddress(urls: string): NatsAddress {
  const parsed = urls.split(',').map(url => new URL(url.trim()));
  const { username, password } = parsed[0]!;
  return {
    servers: parsed.map(url => url.host),
    ...(username && { user: decodeURIComponent(username), pass: decodeURIComponent(password) }),
    ...(parsed.some(url => url.protocol === 'tls:') && { tls: {} }),
  };
}
