/**
 * Shared subscriptions are safe only with a broker that gives a dead member's messages to the others. Mosquitto does
 * not: of 3,000 messages 500 vanished with a member that was killed. Pure.
 */

/**
 * @param options.sharing false when nothing is shared, or somebody has said that he takes the loss
 * @param options.brokerVersion what `$SYS/broker/version` says; null when it says nothing
 * @param options.known whether the broker had the chance to say it
 * @returns why the gateway must not subscribe, or null
 */
export function shareRefusal(options: {
  sharing: boolean;
  brokerVersion: string | null;
  known: boolean;
}): string | null {
  const { sharing, brokerVersion, known } = options;
  if (!sharing) return null;
  if (brokerVersion?.toLowerCase().startsWith('mosquitto')) {
    return `HOLDFAST_MQTT_SHARE_GROUP with ${brokerVersion}: Mosquitto does not give a dead gateway's messages to the others, they would be lost. Use HOLDFAST_STANDBY_GROUP, or accept the loss with HOLDFAST_MQTT_SHARE_ANYWAY=yes`;
  }
  return known ? null : 'HOLDFAST_MQTT_SHARE_GROUP: waiting to learn which broker this is';
}
