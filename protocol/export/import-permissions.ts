/** What the import's NATS user may do, and nothing else: publish a backlog for any site, ask which stream it is. */
import { INGEST_STREAM } from '../subjects.ts';

export const IMPORT_INBOX_PREFIX = '_INBOX_import';

export const importPermissions = {
  publish: [`${INGEST_STREAM}.*.backfill.*.*`, `$JS.API.STREAM.INFO.${INGEST_STREAM}`],
  subscribe: [`${IMPORT_INBOX_PREFIX}.>`],
} as const;
