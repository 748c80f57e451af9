-- Each dollar of waste once, as the rules find it now: a call is claimed by one rule. One row per call.
-- @rule: Rule that claims it: the first in the order of waste_rules with something to recover
-- @finding_id: Finding that claims it; of several of one rule, about several tickets, the first
-- @claimed_usd: What is recoverable of it, at most what was paid, USD
-- @cost_usd: What was paid for it, USD
-- @on_day: UTC day on which it started
-- @parts: Findings and tickets, each with its part of claimed_usd: the tickets that the rule is about, else all of the call's in equal shares, else none
-- @also_in: Other rules that found it
-- @as_of: Moment of judgement, UTC
WITH candidates AS (
  SELECT
    call_id, rule, claim_order, sum(recoverable_nano) AS nano, any_value(cost_nano) AS cost_nano,
    any_value(started_at) AS started_at, any_value(on_day) AS on_day, any_value(team_id) AS team_id,
    any_value(model) AS model, any_value(tickets) AS tickets,
    list({finding_id: finding_id, ticket_id: ticket_id, nano: recoverable_nano}
      ORDER BY recoverable_nano DESC, finding_id) AS found
  FROM waste_hit_calls JOIN waste_rules USING (rule)
  WHERE recoverable_nano > 0 AND claim_order IS NOT NULL
  GROUP BY call_id, rule, claim_order
),
chosen AS (
  FROM candidates
  QUALIFY row_number() OVER (PARTITION BY call_id ORDER BY claim_order, nano DESC, rule) = 1
),
found_by AS (
  SELECT call_id, list(DISTINCT rule) AS rules FROM waste_hit_calls SEMI JOIN chosen USING (call_id) GROUP BY call_id
)
SELECT
  call_id, chosen.rule, found[1].finding_id AS finding_id,
  CAST(CAST(least(nano, cost_nano) AS BIGINT) * 0.000000001 AS DECIMAL(18,9)) AS claimed_usd,
  CAST(CAST(cost_nano AS BIGINT) * 0.000000001 AS DECIMAL(18,9)) AS cost_usd,
  started_at, on_day, team_id, model,
  [{finding_id: p.finding_id, ticket_id: p.ticket_id,
    claimed_usd: CAST(CAST(p.nano AS BIGINT) * 0.000000001 AS DECIMAL(18,9))} FOR p IN CASE
    WHEN found[1].ticket_id IS NOT NULL THEN found
    WHEN len(tickets) > 0 THEN [
      {
        finding_id: found[1].finding_id, ticket_id: tickets[i],
        nano: nano // nullif(len(tickets), 0) + CASE WHEN i <= nano % nullif(len(tickets), 0) THEN 1 ELSE 0 END
      } FOR i IN range(1, len(tickets) + 1)]
    ELSE [{finding_id: found[1].finding_id, ticket_id: NULL, nano: nano}]
  END] AS parts,
  list_sort(list_filter(rules, lambda r: r <> chosen.rule)) AS also_in,
  as_of
FROM chosen JOIN found_by USING (call_id) CROSS JOIN waste_terms
