-- W12: a session called like clockwork for hours, for no ticket, with no edit and nobody there. One row per session.
-- @kind: Always NULL
-- @group_key: Session
-- @ticket_id: Always NULL
-- @calls: All its calls, with their cost
-- @numbers: How many calls, over how many hours, variation of the pauses (standard deviation by mean), human turns
-- @sentence: The same in words
-- Declared schedules (purpose ci, eval, batch) are left out; so are sessions of clients that do not tell of edits and
-- of people's turns. Attempts that the gateway added keep no rhythm of their own.
WITH quiet AS (
  SELECT session
  FROM waste_calls, waste_terms
  WHERE is_counted AND is_work AND session IS NOT NULL
  GROUP BY session
  HAVING count(*) >= any_value(settings.w12_calls)
    AND max(len(tickets)) = 0
    AND bool_and(coalesce(purpose NOT IN ('ci', 'eval', 'batch'), true))
    AND count(*) FILTER (is_ok AND edits IS NULL) = 0 AND coalesce(sum(edits), 0) = 0
    AND count(*) FILTER (is_ok AND human_turn IS NULL) = 0 AND count(*) FILTER (human_turn) <= 1
),
gaps AS (
  SELECT
    *,
    CASE WHEN attempt = 1 THEN epoch(started_at) - epoch(lag(started_at) OVER (
      PARTITION BY session, attempt = 1 ORDER BY started_at, call_id
    )) END AS gap_s
  FROM waste_calls SEMI JOIN quiet USING (session)
  WHERE is_counted AND is_work
),
sessions AS (
  SELECT
    session,
    list({call_id: call_id, nano: cost_nano} ORDER BY started_at, call_id) AS calls,
    count(*) AS n,
    (epoch(max(started_at)) - epoch(min(started_at))) / 3600 AS hours,
    stddev_samp(gap_s) / nullif(avg(gap_s), 0) AS variation,
    count(*) FILTER (human_turn) AS human_turns
  FROM gaps
  GROUP BY session
)
SELECT
  NULL AS kind,
  session AS group_key,
  NULL AS ticket_id,
  calls,
  to_json({calls: n, hours: round(hours, 2), variation: round(variation, 4), human_turns: human_turns}) AS numbers,
  format(
    '{} calls over {} hours at even intervals (variation {}), for no ticket, without an edit; human turns: {}.',
    n, round(hours, 1), round(variation, 3), human_turns
  ) AS sentence
FROM sessions, waste_terms
WHERE hours >= settings.w12_hours AND variation < settings.w12_variation
