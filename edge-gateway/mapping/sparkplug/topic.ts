/** Topics of Sparkplug B: `spBv1.0/{group}/{type}/{node}[/{device}]`. Pure. */

export const NAMESPACE = 'spBv1.0';

const types = ['NBIRTH', 'NDEATH', 'NDATA', 'NCMD', 'DBIRTH', 'DDEATH', 'DDATA', 'DCMD'] as const;
export type MessageType = (typeof types)[number];

export interface SparkplugTopic {
  readonly group: string;
  readonly node: string;
  /** Null in messages of the node itself. */
  readonly device: string | null;
  readonly type: MessageType;
}

const isType = (text: string | undefined): text is MessageType => types.includes(text as MessageType);

/** @returns null when the levels are not those of a message of a node or device */
export function parseTopic(levels: readonly string[]): SparkplugTopic | null {
  const [namespace, group, type, node, device = null] = levels;
  if (namespace !== NAMESPACE || !group || !node || !isType(type)) return null;
  if (levels.length !== (type.startsWith('D') ? 5 : 4) || device === '') return null;
  return { group, node, device, type };
}

/** No level has a slash, so two different nodes never have one key. */
export const nodeKey = ({ group, node }: SparkplugTopic): string => `${group}/${node}`;

/** `group/node`, or `group/node/device`: who sent the message. */
export const topicKey = (topic: SparkplugTopic): string =>
  topic.device === null ? nodeKey(topic) : `${nodeKey(topic)}/${topic.device}`;

/** The topic of another message of the same node or device. */
export const topicOf = ({ group, node, device }: SparkplugTopic, type: MessageType): string =>
  [NAMESPACE, group, type, node, ...(device === null ? [] : [device])].join('/');
