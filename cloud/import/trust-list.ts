/**
 * Whose exports are taken: lines `site/gateway ed25519:…`, as `holdfast edge export --show-key` prints them; `#` begins a
 * comment. A gateway may have several keys, after a card was replaced, say. Which site and gateway a file belongs to is
 * what this list says of the key that signed it (S).
 */
import { isSigningKeyText } from '../../protocol/export/signing.ts';
import { isGatewayId, isSiteId } from '../../protocol/ids.ts';

/** Names `site/gateway` by key. */
export type TrustList = ReadonlyMap<string, ReadonlySet<string>>;

/** @returns the list, or one line per mistake */
export function parseTrustList(
  text: string,
): { readonly ok: true; readonly trust: TrustList } | { readonly ok: false; readonly problems: string[] } {
  const trust = new Map<string, Set<string>>();
  const problems: string[] = [];
  for (const [index, line] of text.split('\n').entries()) {
    const words = line.replace(/#.*/, '').trim().split(/\s+/);
    const [name = '', key = '', ...rest] = words;
    if (name === '') continue;
    const [site = '', gateway = '', ...deeper] = name.split('/');
    if (
      rest.length > 0 ||
      deeper.length > 0 ||
      !isSiteId(site) ||
      !isGatewayId(gateway) ||
      !isSigningKeyText(key)
    ) {
      problems.push(`line ${index + 1}: wanted is "site/gateway ed25519:…", found "${line.trim()}"`);
      continue;
    }
    trust.set(key, (trust.get(key) ?? new Set()).add(name));
  }
  return problems.length > 0 ? { ok: false, problems } : { ok: true, trust };
}
