/**
 * Which topics may hold retained metadata and availability, pure: the common shape, what each profile is known to
 * retain, and the status mappings of the mapping file. They are read again at every connect.
 */
import type { MappingConfig, ProfileConfig } from '../mapping/mapping-file.ts';

/** @returns MQTT topic filters */
export function metadataFilters({ profiles, mappings }: MappingConfig): string[] {
  const own = mappings
    .filter(mapping => mapping.kind === 'status' && !mapping.ignore)
    .map(({ topic }) => topic.replaceAll(/\{[^{}]*\}/g, '+'));
  return [...new Set(['devices/+/status', ...profiles.flatMap(ofProfile), ...own])];
}

function ofProfile({ profile, base }: ProfileConfig): string[] {
  if (profile === 'zigbee2mqtt') {
    // Friendly names may have slashes; beyond two of them the live message alone is seen.
    const leaves = ['bridge/devices', 'bridge/groups', 'bridge/info', 'bridge/state'];
    const names = ['+', '+/+', '+/+/+'].map(name => `${name}/availability`);
    return [...leaves, ...names].map(leaf => `${base ?? 'zigbee2mqtt'}/${leaf}`);
  }
  if (profile === 'tasmota') {
    return ['tasmota/discovery/#', `${base === undefined ? '' : `${base}/`}tele/+/LWT`];
  }
  if (profile === 'shelly') {
    const above = base === undefined ? [] : [`${base}/+/online`];
    return ['shellies/+/announce', 'shellies/+/online', '+/online', ...above];
  }
  return [];
}

/** Whether a topic matches an MQTT topic filter (MQTT 5, 4.7). */
export function matchesFilter(filter: string, topic: string): boolean {
  const wanted = filter.split('/');
  const levels = topic.split('/');
  if (topic.startsWith('$') && (wanted[0] === '+' || wanted[0] === '#')) return false;
  for (const [index, level] of wanted.entries()) {
    if (level === '#') return true;
    if (index >= levels.length || (level !== '+' && level !== levels[index])) return false;
  }
  return wanted.length === levels.length;
}
