-- W13: a long session that nobody steered, and that cost far more than sessions do. One row per session.
-- @kind: Always NULL
-- @group_key: Session
-- @ticket_id: Always NULL
-- @calls: The calls after its sum had passed the threshold, with their cost
-- @numbers: The threshold, what it is made of, calls, human turns, and the sum after each tenth of the calls
-- @sentence: The same in words
-- Sessions of clients that do not tell of people's turns are left out.
WITH sessions AS (
  SELECT
    session, arg_min(client, (started_at, call_id)) AS client, count(*) AS n,
    coalesce(sum(cost_nano), 0) AS session_nano,
    count(*) FILTER (human_turn) AS human_turns, count(*) FILTER (is_ok AND human_turn IS NULL) = 0 AS is_told
  FROM waste_calls
  WHERE is_counted AND is_work AND session IS NOT NULL
  GROUP BY session
),
usual AS (
  SELECT client, count(*) AS sessions, quantile_cont(CAST(session_nano AS DOUBLE), 0.95) AS p95_nano
  FROM sessions
  GROUP BY client
),
runaways AS (
  SELECT
    session, n, human_turns, session_nano, usual.sessions, p95_nano,
    CAST(ceil(greatest(CAST(settings.w13_usd AS DECIMAL(28,9)) * 1000000000, settings.w13_times * p95_nano)) AS HUGEINT)
      AS threshold_nano
  FROM sessions
    JOIN usual ON usual.client IS NOT DISTINCT FROM sessions.client
    CROSS JOIN waste_terms
  WHERE n >= settings.w13_calls AND is_told AND human_turns * settings.w13_calls <= n
    AND usual.sessions >= settings.w13_baseline AND session_nano > threshold_nano
),
work AS (
  SELECT
    call_id, session, cost_nano,
    coalesce(sum(cost_nano) OVER steps, 0) AS sum_nano,
    row_number() OVER steps AS place
  FROM waste_calls SEMI JOIN runaways USING (session)
  WHERE is_counted AND is_work
  WINDOW steps AS (PARTITION BY session ORDER BY started_at, call_id)
)
SELECT
  NULL AS kind,
  session AS group_key,
  NULL AS ticket_id,
  list({call_id: call_id, nano: cost_nano} ORDER BY place)
    FILTER (sum_nano - coalesce(cost_nano, 0) > threshold_nano) AS calls,
  to_json({
    threshold_usd: CAST(CAST(any_value(threshold_nano) AS BIGINT) * 0.000000001 AS DECIMAL(18,9)),
    usual_p95_usd: round(any_value(p95_nano) / 1000000000, 6), usual_over_sessions: any_value(sessions),
    session_usd: CAST(CAST(any_value(session_nano) AS BIGINT) * 0.000000001 AS DECIMAL(18,9)), calls: any_value(n),
    human_turns: any_value(human_turns),
    curve_usd: list(CAST(CAST(sum_nano AS BIGINT) * 0.000000001 AS DECIMAL(18,9)) ORDER BY place)
      FILTER (place % greatest(n // 10, 1) = 0)
  }) AS numbers,
  format(
    '{} calls with {} human turns cost {:.2f} USD; the threshold for such sessions is {:.2f} USD.',
    any_value(n), any_value(human_turns), any_value(session_nano) / 1000000000, any_value(threshold_nano) / 1000000000
  ) AS sentence
FROM work JOIN runaways USING (session)
GROUP BY session
HAVING count(*) FILTER (sum_nano - coalesce(cost_nano, 0) > threshold_nano) > 0
