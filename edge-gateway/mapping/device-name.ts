/**
 * Device names from what other systems call their devices. Two different names never become one device.
 *
 * Friendly names ({@link deviceFromPath}): `A-Z a-z 0-9 _ . -` stay, `/` becomes `:`, a space becomes `:_`, and every
 * other character becomes `:-XX` for each byte of its UTF-8. After a `/`, a `_` or `-` is written `:-XX` as well, so
 * that a `:` is read back in one way only.
 *
 * Identifiers ({@link deviceFromId}): what is a device name stays as it is, except that `:-` becomes `:-3A-`; every
 * other character becomes `:-XX` for each byte.
 */
import { DEVICE_ID_RULE, type DeviceId, isDeviceId } from '../../protocol/ids.ts';
import { Unusable } from './decoded.ts';

/**
 * @param path levels with `/` between them, spaces and all
 * @throws Unusable when it is empty or what comes of it is too long
 */
export function deviceFromPath(path: string): DeviceId {
  let name = '';
  let before = '';
  for (const character of path) {
    if (character === '/') name += ':';
    else if (character === ' ') name += ':_';
    else if (/[A-Za-z0-9.]/.test(character)) name += character;
    else if (/[_-]/.test(character) && before !== '/') name += character;
    else name += escaped(character);
    before = character;
  }
  return checked(name, path);
}

/** @throws Unusable when it is empty or what comes of it is too long */
export function deviceFromId(id: string): DeviceId {
  if (isDeviceId(id) && !id.includes(':-')) return id;
  return checked(id.replaceAll(/:(?=-)|[^A-Za-z0-9_.:-]/gu, escaped), id);
}

const escaped = (character: string): string =>
  [...Buffer.from(character)].map(byte => `:-${byte.toString(16).toUpperCase().padStart(2, '0')}`).join('');

function checked(name: string, from: string): DeviceId {
  if (isDeviceId(name)) return name;
  throw new Unusable(
    `device name "${from.slice(0, 60)}" becomes ${name.length} characters: expected ${DEVICE_ID_RULE}`,
  );
}
