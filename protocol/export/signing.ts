/**
 * The keys that gateways sign their exports with, Ed25519, and their text form `ed25519:<43 characters of base64url>`.
 * What is signed is a name for this use and the SHA-512 of the bytes, so that no signature made here means anything
 * elsewhere, and a file need not be in memory to be signed.
 */
import { createPublicKey, type KeyObject, sign, verify } from 'node:crypto';

export const SIGNATURE_BYTES = 64;
const PREFIX = 'ed25519:';
const CONTEXT = Buffer.from('holdfast-export-1\0', 'latin1');
const TEXT = /^ed25519:[A-Za-z0-9_-]{43}$/;

export const isSigningKeyText = (text: string): boolean => TEXT.test(text);

/** @param key an Ed25519 key, public or private */
export function signingKeyText(key: KeyObject): string {
  const publicKey = key.type === 'private' ? createPublicKey(key) : key;
  return `${PREFIX}${publicKey.export({ format: 'jwk' }).x}`;
}

/** @param sha512 of all that is to be signed */
export const signDigest = (sha512: Uint8Array, privateKey: KeyObject): Buffer =>
  sign(null, Buffer.concat([CONTEXT, sha512]), privateKey);

/** @param keyText as {@link signingKeyText} gives it; false for any other text */
export function isSignedBy(keyText: string, sha512: Uint8Array, signature: Uint8Array): boolean {
  if (!isSigningKeyText(keyText)) return false;
  const jwk = { kty: 'OKP', crv: 'Ed25519', x: keyText.slice(PREFIX.length) };
  try {
    const key = createPublicKey({ key: jwk, format: 'jwk' });
    return verify(null, Buffer.concat([CONTEXT, sha512]), key, signature);
  } catch {
    return false;
  }
}
