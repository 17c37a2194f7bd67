/**
 * What the registry knows, and the bounds of it. A device's name in history and on dashboards is the `device` here; what
 * its hardware calls itself may be an alias of it.
 */
import { z } from 'zod';
import { DEVICE_ID_RULE, isDeviceId, isSiteId } from '../../protocol/ids.ts';
import { limits } from '../../protocol/limits.ts';
import { type Conversion, conversionBetween } from './units.ts';

/** Bounds (F): a change beyond one is refused, and says so. */
export const registryLimits = {
  typesMax: 10_000,
  devicesPerSiteMax: 250_000,
  aliasesPerDeviceMax: 64,
  labelsMax: 32,
  labelCharactersMax: 64,
  metadataKeysMax: 64,
  metadataBytesMax: 8 * 1024,
  displayNameCharactersMax: 200,
  unitCharactersMax: 32,
} as const;

/** PostgreSQL's text and jsonb hold neither U+0000 nor half of a surrogate pair. */
const isStorable = (text: string): boolean => !text.includes('\0') && text.isWellFormed();
const text = (charactersMax: number) =>
  z.string().max(charactersMax).refine(isStorable, 'contains a character that cannot be stored');

const Label = z
  .string()
  .regex(
    new RegExp(`^[A-Za-z0-9_.:-]{1,${registryLimits.labelCharactersMax}}$`),
    `expected 1 to ${registryLimits.labelCharactersMax} of the characters A-Z a-z 0-9 _ . : -`,
  );
const Labels = z
  .array(Label)
  .max(registryLimits.labelsMax)
  .transform(labels => [...new Set(labels)].sort());

export const DeviceName = z.string().refine(isDeviceId, `expected ${DEVICE_ID_RULE}`);
export const SiteName = z.string().refine(isSiteId, 'expected 1 to 64 of the characters A-Z a-z 0-9 _ -');
export const TypeName = Label;

const Unit = text(registryLimits.unitCharactersMax).min(1);
const MetricUnits = z
  .strictObject({
    /** What history and twins hold. */
    unit: Unit,
    /** What the devices send, where that is another one. */
    reported: Unit.optional(),
  })
  .superRefine(({ unit, reported }, context) => {
    const found = conversionBetween(reported ?? unit, unit);
    // A unit that is only a label may be any text; one to convert to or from has to be known.
    if (reported !== undefined && !found.ok) {
      context.addIssue({ code: 'custom', path: ['reported'], message: found.reason });
    }
  });

const Days = z.number().int().min(1).max(36_500);

/** How long history keeps what devices of the type sent, where it is not as for everybody (`cloud/history/retention.ts`). */
const Retention = z.strictObject({
  /** Every reading. */
  raw: Days.optional(),
  minutely: Days.optional(),
  hourly: Days.optional(),
  daily: Days.optional(),
});

export const TypeEntry = z.strictObject({
  description: text(1000).default(''),
  retention: Retention.default({}),
  metrics: z
    .record(text(limits.metricNameBytesMax).min(1), MetricUnits)
    .refine(
      metrics => Object.keys(metrics).length <= limits.metricsPerElementMax,
      `more than ${limits.metricsPerElementMax} metrics`,
    )
    .default({}),
});
export type TypeEntry = z.output<typeof TypeEntry>;

const Metadata = z
  .record(text(64).min(1), z.union([text(1000), z.number(), z.boolean(), z.null()]))
  .refine(
    metadata => Object.keys(metadata).length <= registryLimits.metadataKeysMax,
    `more than ${registryLimits.metadataKeysMax} keys`,
  )
  .refine(
    metadata => Buffer.byteLength(JSON.stringify(metadata)) <= registryLimits.metadataBytesMax,
    `more than ${registryLimits.metadataBytesMax} bytes`,
  );

/** A change of a device's entry: what is not named stays as it is. */
export const DevicePatch = z.strictObject({
  displayName: text(registryLimits.displayNameCharactersMax).min(1).nullable().optional(),
  type: TypeName.nullable().optional(),
  tags: Labels.optional(),
  groups: Labels.optional(),
  metadata: Metadata.optional(),
});
export type DevicePatch = z.output<typeof DevicePatch>;

export const unknownPolicies = ['admit', 'quarantine'] as const;
export type UnknownPolicy = (typeof unknownPolicies)[number];

/** What is known of one device, as rules and lists need it. */
export interface DeviceFacts {
  readonly displayName: string | null;
  readonly type: string | null;
  readonly tags: readonly string[];
  readonly groups: readonly string[];
  readonly retired: boolean;
}

/** A name that readings come under, and what becomes of them. Aliases of one device share its `facts`. */
export interface NameEntry {
  /** The name of the twin; another one than the readings' when theirs is an alias. */
  readonly device: string;
  readonly facts: DeviceFacts;
  /** By metric; null when nothing of the device's type is converted. */
  readonly conversions: ReadonlyMap<string, Conversion> | null;
}

/** All that concerns one site; never changed in place. */
export interface SiteRegistry {
  readonly unknownDevices: UnknownPolicy;
  /** By the name that readings come under, aliases among them. */
  readonly names: ReadonlyMap<string, NameEntry>;
  /** Alias → device. */
  readonly aliases: ReadonlyMap<string, string>;
}

/** @returns null when nothing is converted; what cannot be any more (it was checked when it was stored) is left out */
export function conversionsOf(type: TypeEntry): ReadonlyMap<string, Conversion> | null {
  const conversions = new Map<string, Conversion>();
  for (const [metric, { unit, reported }] of Object.entries(type.metrics)) {
    if (reported === undefined || reported === unit) continue;
    const found = conversionBetween(reported, unit);
    if (found.ok) conversions.set(metric, found.convert);
  }
  return conversions.size > 0 ? conversions : null;
}
