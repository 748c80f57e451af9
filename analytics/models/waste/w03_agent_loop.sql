-- W03: an agent did the same thing again and again, with the same result. One row per run.
-- @kind: polling when the calls are a minute or more apart: it may be waiting, and nothing is counted
-- @group_key: Stream and the run's first call
-- @ticket_id: Always NULL
-- @calls: The calls of the run after the free ones, with their cost
-- @numbers: Hash of the action, length of the run, calls before the counted ones, mean gap
-- @sentence: The same in words
-- Other arguments, or another result, have another action_hash: that is progress, and ends the run. Subagents of a
-- session that work at the same time are told apart by their prefix; where each call waited for the one before, it is one
-- agent, whose prefix may change (a compaction). To send a request again that has failed is no step of a loop.
WITH repeated AS (
  SELECT DISTINCT session
  FROM (
    SELECT session
    FROM waste_calls, waste_terms
    WHERE action_hash IS NOT NULL AND session IS NOT NULL
    GROUP BY session, action_hash
    HAVING count(*) >= any_value(settings.w03_calls)
  )
),
tried AS (
  SELECT
    *,
    request_hash = lag(request_hash) OVER steps AND lag(failed) OVER steps AS is_retry
  FROM waste_calls SEMI JOIN repeated USING (session)
  WHERE is_work
  WINDOW steps AS (PARTITION BY session, agent, prefix_hash ORDER BY started_at, call_id)
),
did AS (
  SELECT
    call_id, started_at, cost_nano, action_hash, session, agent, prefix_hash,
    coalesce(started_at >= lag(ended_at) OVER (PARTITION BY session, agent ORDER BY started_at, call_id), true) AS has_waited
  FROM tried
  WHERE is_counted AND is_retry IS NOT TRUE
),
streams AS (
  SELECT *, prefix_hash AS lane, 1 AS guess FROM did
  UNION ALL
  SELECT *, NULL AS lane, 2 AS guess FROM did
),
placed AS (
  SELECT
    *,
    row_number() OVER (PARTITION BY guess, session, agent, lane ORDER BY started_at, call_id)
      - row_number() OVER (PARTITION BY guess, session, agent, lane, action_hash ORDER BY started_at, call_id) AS island
  FROM streams
),
runs AS (
  SELECT
    session, action_hash,
    count(*) AS length,
    list({call_id: call_id, nano: cost_nano} ORDER BY started_at, call_id) AS all_calls,
    (epoch(max(started_at)) - epoch(min(started_at))) / nullif(count(*) - 1, 0) AS mean_gap_s
  FROM placed, waste_terms
  WHERE action_hash IS NOT NULL
  GROUP BY guess, session, agent, lane, action_hash, island
  HAVING count(*) >= any_value(settings.w03_calls) AND (guess = 1 OR bool_and(has_waited))
  QUALIFY guess = min(guess) OVER (PARTITION BY session, agent, action_hash)
)
SELECT
  CASE WHEN mean_gap_s >= settings.w03_polling_seconds THEN 'polling' END AS kind,
  concat_ws('|', session, action_hash, all_calls[1].call_id) AS group_key,
  NULL AS ticket_id,
  all_calls[settings.w03_free + 1:] AS calls,
  to_json({
    action_hash: action_hash, length: length, free_call_ids: [c.call_id FOR c IN all_calls[:settings.w03_free]],
    mean_gap_s: round(mean_gap_s, 3)
  }) AS numbers,
  format('The same action had the same result {} times in a row, about every {} s.', length, round(mean_gap_s, 1))
    AS sentence
FROM runs, waste_terms
