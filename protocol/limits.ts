/**
 * Every bound that both ends of the wire must agree on (invariant F: every buffer has a bound and a stated
 * behaviour at it). Bounds that concern one process alone live in that process's config.
 */
export const limits = {
  /** Larger MQTT payloads are set aside as quarantined, with their first bytes kept. */
  payloadBytesMax: 256 * 1024,
  /** Bytes of a quarantined payload that are kept for a person to look at. */
  quarantinedPayloadBytesMax: 4 * 1024,
  /** MQTT topics longer than this are set aside. */
  topicBytesMax: 1024,
  /** Metrics in one element of a message; a message with more is set aside. */
  metricsPerElementMax: 256,
  /** Elements (array entries) in one message; a message with more is set aside. */
  elementsPerMessageMax: 1024,
  /** UTF-8 bytes of a metric name, dots of nesting included. */
  metricNameBytesMax: 128,
  /** UTF-8 bytes of a string value. */
  stringValueBytesMax: 4 * 1024,
  /** JSON nesting that is flattened into dotted names. */
  nestingMax: 8,

  /** Messages (sequences) in one batch. */
  batchMessagesMax: 4096,
  /** Rows (elements) in one batch. */
  batchRowsMax: 16 * 1024,
  /** Raw MQTT payload bytes gathered into one batch: leaves room below the NATS payload limit of 1 MiB. */
  batchPayloadBytesMax: 512 * 1024,
  /** Bytes of one encoded batch on the wire. */
  batchWireBytesMax: 1024 * 1024,
  /** Bytes that a batch may inflate to; the decoder stops there. */
  batchInflatedBytesMax: 16 * 1024 * 1024,

  /** How long gateways keep what history has settled, while they have room and no confirmed backup has it. */
  keepSettledMs: 72 * 3_600_000,

  /** A device timestamp this far ahead of the gateway's clock is ordered by arrival and flagged. */
  futureToleranceMs: 5 * 60_000,
  /** A device timestamp before this is from a clock that was never set: the reading is ordered by arrival and flagged. */
  earliestBelievedMs: Date.UTC(2015, 0, 1),
} as const;
