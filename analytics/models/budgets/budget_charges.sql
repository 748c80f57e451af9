-- What the calls of the present period count in each budget that covers them. One row per call, budget and account.
-- @name: Name of the budget
-- @value: Ticket, task or user whose account it is, of a template; else empty
-- @period: day, week, month, quarter, total, rolling_24h
-- @period_start: From when calls count, UTC; NULL for total
-- @charged_usd: What the account counts for the call, or for the tickets of it that it is about, USD: what is paid for it, else its list cost; of a call that a crash interrupted what it held, for nobody knows how much was billed; NULL when it has no price
-- A call is in the scopes of gateway/scopes.py. Its tickets pay equal shares, as in call_tickets.
WITH terms AS MATERIALIZED (
  SELECT
    name, kind, value, pattern, period, period_start,
    coalesce(period_start, TIMESTAMP '-infinity') AS start_at,
    coalesce(period_end, TIMESTAMP 'infinity') AS end_at
  FROM budget_terms
),
wide AS MATERIALIZED (
  FROM terms WHERE value IS NULL OR pattern IS NOT NULL
),
counted AS MATERIALIZED (
  SELECT
    call_id, started_at, team_id, user_id, key_id, purpose, request_model, task_id, tickets, len(tickets) AS ways,
    coalesce(contracted_cost_usd, list_cost_usd, CASE result WHEN 'interrupted' THEN held_usd END) AS charged_usd
  FROM calls
  WHERE started_at >= (SELECT min(start_at) FROM terms) AND result IS DISTINCT FROM 'refused'
),
parts AS (
  SELECT 'org' AS kind, '' AS of_value, call_id, started_at, charged_usd FROM counted
  UNION ALL
  SELECT 'team', team_id, call_id, started_at, charged_usd FROM counted WHERE team_id <> ''
  UNION ALL
  SELECT 'user', user_id, call_id, started_at, charged_usd FROM counted WHERE user_id <> ''
  UNION ALL
  SELECT 'key', key_id, call_id, started_at, charged_usd FROM counted WHERE key_id <> ''
  UNION ALL
  SELECT 'purpose', purpose, call_id, started_at, charged_usd FROM counted WHERE purpose <> ''
  UNION ALL
  SELECT 'model', request_model, call_id, started_at, charged_usd FROM counted WHERE request_model <> ''
  UNION ALL
  SELECT 'task', task_id, call_id, started_at, charged_usd FROM counted WHERE task_id <> ''
  UNION ALL
  SELECT 'project', regexp_replace(tickets[1], '[#-]\p{Nd}+$', ''), call_id, started_at, charged_usd
  FROM counted WHERE ways = 1
  UNION ALL
  SELECT 'ticket', tickets[1], call_id, started_at, charged_usd FROM counted WHERE ways = 1
),
-- Of calls for several tickets.
shares AS (
  SELECT call_id, started_at, ticket_id,
    CAST(
      (nano // ways + CASE WHEN ticket_position <= nano % ways THEN 1 ELSE 0 END) * 0.000000001 AS DECIMAL(18,9)
    ) AS charged_usd
  FROM (
    SELECT
      call_id, started_at, ways,
      unnest(tickets) AS ticket_id,
      generate_subscripts(tickets, 1) AS ticket_position,
      CAST(CAST(charged_usd AS DECIMAL(28,9)) * 1000000000 AS BIGINT) AS nano
    FROM counted
    WHERE ways > 1
  )
),
split_parts AS (
  SELECT 'project' AS kind, regexp_replace(ticket_id, '[#-]\p{Nd}+$', '') AS of_value, * EXCLUDE (ticket_id) FROM shares
  UNION ALL
  SELECT 'ticket', ticket_id, * EXCLUDE (ticket_id) FROM shares
),
met AS (
  SELECT kind, of_value FROM parts SEMI JOIN wide USING (kind)
  UNION
  SELECT kind, of_value FROM split_parts SEMI JOIN wide USING (kind)
),
accounts AS MATERIALIZED (
  SELECT kind, value AS of_value, name, '' AS value, period, period_start, start_at, end_at
  FROM terms
  WHERE value IS NOT NULL AND pattern IS NULL
  UNION ALL
  SELECT kind, of_value, name, CASE WHEN value IS NULL THEN of_value ELSE '' END, period, period_start, start_at, end_at
  FROM met JOIN wide USING (kind)
  WHERE value IS NULL OR value = of_value OR regexp_full_match(of_value, pattern, 's')
)
SELECT name, value, period, period_start, call_id, started_at, charged_usd
FROM parts JOIN accounts USING (kind, of_value)
WHERE started_at >= start_at AND started_at < end_at
UNION ALL
SELECT name, value, period, period_start, call_id, started_at, CAST(sum(charged_usd) AS DECIMAL(18,9)) AS charged_usd
FROM split_parts JOIN accounts USING (kind, of_value)
WHERE started_at >= start_at AND started_at < end_at
GROUP BY ALL
