-- What budgets in shadow mode would have refused. One row per budget and basis: what the gateway recorded since the
-- budget is what it is; before that, the calls replayed in the order of their starts: those that began when their
-- account had spent its limit. What a refused call cost is spent in both, for it was not refused.
WITH all_charges AS MATERIALIZED (
  FROM budget_charges
),
account_charges AS (
  SELECT *, coalesce(sum(charged_usd) OVER (
    PARTITION BY name, value, period_start ORDER BY started_at, call_id
    ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
  ), 0) AS spent_usd
  FROM all_charges
  WHERE period <> 'rolling_24h'
  UNION ALL
  SELECT *, coalesce(sum(charged_usd) OVER (
    PARTITION BY name, value ORDER BY started_at
    RANGE BETWEEN INTERVAL 24 HOUR PRECEDING AND CURRENT ROW EXCLUDE CURRENT ROW
  ), 0) AS spent_usd
  FROM all_charges
  WHERE period = 'rolling_24h'
),
judged AS (
  SELECT
    charges.name, charges.started_at, charges.charged_usd, calls.tickets, calls.budget_action, calls.refusal,
    CASE WHEN charges.started_at >= since THEN 'recorded' ELSE 'replayed' END AS basis,
    spent_usd >= limit_usd + coalesce(list_sum([
      r.amount_usd for r in raises
      if r.at <= charges.started_at AND r.until_at > charges.started_at AND coalesce(r.value, charges.value) = charges.value
    ]), 0) AS is_over
  FROM account_charges AS charges JOIN budgets USING (name) JOIN calls USING (call_id)
  WHERE charges.started_at >= CAST($from AS TIMESTAMP) AND charges.started_at < CAST($to AS TIMESTAMP)
    AND calls.started_at >= CAST($from AS TIMESTAMP) AND calls.started_at < CAST($to AS TIMESTAMP)
),
refused AS (
  SELECT
    name, basis,
    count(*) AS calls,
    min(started_at) AS first_at,
    max(started_at) AS last_at,
    sum(charged_usd) AS spent_after_usd,
    count(*) FILTER (WHERE charged_usd IS NULL) AS unpriced_calls,
    len(list_distinct(flatten(list(tickets)))) AS tickets
  FROM judged
  WHERE CASE basis
    -- A call with a refusal that it would have had: a guard said so, not a budget.
    WHEN 'recorded' THEN budget_action IS NOT DISTINCT FROM 'shadow_blocked' AND refusal IS NULL
    ELSE is_over
  END
  GROUP BY name, basis
),
bases AS (
  SELECT name, 'replayed' AS basis FROM budgets WHERE mode = 'shadow' AND since > CAST($from AS TIMESTAMP)
  UNION ALL
  SELECT name, 'recorded' FROM budgets WHERE mode = 'shadow' AND since < CAST($to AS TIMESTAMP)
)
SELECT
  name, scope, period, limit_usd, basis, since,
  coalesce(calls, 0) AS calls,
  first_at, last_at,
  coalesce(spent_after_usd, 0.000000000) AS spent_after_usd,
  coalesce(unpriced_calls, 0) AS unpriced_calls,
  coalesce(tickets, 0) AS tickets
FROM bases JOIN budgets USING (name) LEFT JOIN refused USING (name, basis)
ORDER BY name, basis DESC
