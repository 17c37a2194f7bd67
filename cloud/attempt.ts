/** What may well fail while a node starts, as a value: its result, or the reason in words. Never rejects. */
export async function attempt<T>(
  work: () => Promise<T>,
): Promise<{ ok: true; value: T } | { ok: false; reason: string }> {
  try {
    return { ok: true, value: await work() };
  } catch (error) {
    const { message, code } = error as Error & { code?: string };
    return { ok: false, reason: message || code || String(error) };
  }
}
