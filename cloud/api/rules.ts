/** Alert rules over the API: read by anybody, changed by those who may. They apply on every node within seconds. */
import type { TemplatedApp } from 'uWebSockets.js';
import type { Pool } from 'pg';
import { deleteRule, readRule, readRules, ruleOfRow, writeRule } from '../rule-book.ts';
import { RULES_MAX, RuleBody, RuleId } from '../rule-model.ts';
import { type ChangeAccess, changeJson, getJson, Problem } from './http.ts';

export function registerRuleRoutes(options: {
  app: TemplatedApp;
  pool: Pool;
  access: ChangeAccess;
  onError: (route: string, error: unknown) => void;
}): void {
  const { app, pool, access, onError } = options;

  getJson(
    app,
    '/rules',
    async () => {
      const rules = [];
      const setAside = [];
      for (const row of await readRules(pool)) {
        const rule = ruleOfRow(row);
        if (typeof rule === 'string') setAside.push({ id: row.id, reason: rule });
        else rules.push(rule);
      }
      return { rules, setAside };
    },
    onError,
  );

  getJson(
    app,
    '/rules/:id',
    async ({ parameters: [id = ''] }) => {
      const row = await readRule(pool, id);
      if (!row) throw notFound(id);
      const rule = ruleOfRow(row);
      if (typeof rule === 'string') throw new Problem(409, 'Set aside', rule);
      return rule;
    },
    onError,
  );

  changeJson(
    app,
    'put',
    '/rules/:id',
    async ({ parameters: [id = ''], body }) => {
      const named = RuleId.safeParse(id);
      if (!named.success) throw new Problem(400, 'Bad request', `id: ${named.error.issues[0]!.message}`);
      const rule = { ...RuleBody.parse(body), id };
      if (!(await writeRule(pool, rule))) {
        throw new Problem(409, 'Full', `there are ${RULES_MAX} rules already: delete one first`);
      }
      return rule;
    },
    access,
    onError,
  );

  changeJson(
    app,
    'del',
    '/rules/:id',
    async ({ parameters: [id = ''] }) => {
      if (!(await deleteRule(pool, id))) throw notFound(id);
    },
    access,
    onError,
  );
}

const notFound = (id: string) => new Problem(404, 'Not found', `no rule ${id}`);
