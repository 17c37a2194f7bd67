/** A site's registry as a test says it. */
import type { NameEntry, SiteRegistry, TypeEntry, UnknownPolicy } from '../../cloud/registry/model.ts';
import { conversionsOf } from '../../cloud/registry/model.ts';

export function snapshot(of: {
  readonly unknownDevices?: UnknownPolicy;
  /** Device → metrics of its type. */
  readonly devices?: Readonly<Record<string, TypeEntry['metrics']>>;
  readonly aliases?: Readonly<Record<string, string>>;
}): SiteRegistry {
  const names = new Map<string, NameEntry>();
  for (const [device, metrics] of Object.entries(of.devices ?? {})) {
    const facts = { displayName: null, type: 'some', tags: [], groups: [], retired: false };
    names.set(device, {
      device,
      facts,
      conversions: conversionsOf({ description: '', metrics, retention: {} }),
    });
  }
  const aliases = new Map(Object.entries(of.aliases ?? {}));
  for (const [alias, device] of aliases) names.set(alias, names.get(device)!);
  return { unknownDevices: of.unknownDevices ?? 'admit', names, aliases };
}
