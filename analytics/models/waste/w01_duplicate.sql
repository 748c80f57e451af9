-- W01: the same request was answered more than once on one day. One row per team, model, request and UTC day.
-- @kind: Always NULL
-- @group_key: Team, model, request and day
-- @ticket_id: Always NULL
-- @calls: Every answer after the first, with what is recoverable of it: its cost
-- @numbers: Hash of the request, the first call, the number of answers, seconds from the first to the last
-- @sentence: The same in words
-- Attempts of one request belong to W02, and so do those of a retry storm; the answer that it was about is an answer.
WITH repeated AS (
  SELECT request_hash FROM waste_calls WHERE request_hash IS NOT NULL GROUP BY request_hash HAVING count(*) > 1
),
asked AS (
  SELECT call_id, started_at, on_day, team_id, model, request_hash, cost_nano
  FROM waste_calls
    SEMI JOIN repeated USING (request_hash)
    ANTI JOIN (SELECT unnest(calls).call_id AS call_id FROM w02_retry_storm) AS tried USING (call_id)
  WHERE is_counted AND is_ok AND purpose IS DISTINCT FROM 'eval'
    AND coalesce(finish NOT IN ('length', 'max_tokens', 'max_output_tokens', 'incomplete'), true)
  QUALIFY row_number() OVER (PARTITION BY request_id ORDER BY attempt, call_id) = 1
),
placed AS (
  SELECT
    *,
    row_number() OVER (PARTITION BY team_id, model, request_hash, on_day ORDER BY started_at, call_id) AS place
  FROM asked
)
SELECT
  NULL AS kind,
  concat_ws('|', coalesce(team_id, ''), coalesce(model, ''), request_hash, on_day) AS group_key,
  NULL AS ticket_id,
  list({call_id: call_id, nano: cost_nano} ORDER BY place) FILTER (place > 1) AS calls,
  to_json({
    request_hash: request_hash, first_call_id: arg_min(call_id, place), answers: count(*),
    span_s: epoch(max(started_at)) - epoch(min(started_at))
  }) AS numbers,
  format('The same request was answered {} times on {}; the first answer could have served them all.', count(*), on_day)
    AS sentence
FROM placed
GROUP BY team_id, model, request_hash, on_day
HAVING count(*) > 1
