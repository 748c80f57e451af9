-- W05: an answer was cut at its maximum, and the same was asked again with a larger one. One row per cut call.
-- @kind: clamped when a budget had lowered the maximum: then it is its owner's to know, and nothing is recoverable
-- @group_key: The cut call
-- @ticket_id: Always NULL
-- @calls: The cut call, with its cost
-- @numbers: Both calls, both maxima, seconds between them
-- @sentence: The same in words
-- Asked again with more messages it would be a continuation.
WITH cut AS (
  SELECT call_id, session, request_hash, started_at, max_output_tokens, message_count, budget_action, cost_nano
  FROM waste_calls
  WHERE is_counted AND session IS NOT NULL AND request_hash IS NOT NULL
    AND finish IN ('length', 'max_tokens', 'max_output_tokens', 'incomplete')
),
pairs AS (
  SELECT
    cut.*,
    again.call_id AS again_call_id,
    again.max_output_tokens AS again_max,
    epoch(again.started_at) - epoch(cut.started_at) AS after_s
  FROM cut
    JOIN waste_calls AS again ON again.session = cut.session AND again.request_hash = cut.request_hash
    CROSS JOIN waste_terms
  WHERE again.started_at > cut.started_at
    AND again.started_at <= cut.started_at + to_minutes(CAST(settings.w05_minutes AS BIGINT))
    AND coalesce(again.max_output_tokens > cut.max_output_tokens, cut.max_output_tokens IS NOT NULL)
    AND coalesce(again.message_count <= cut.message_count, true)
  QUALIFY row_number() OVER (PARTITION BY cut.call_id ORDER BY again.started_at, again.call_id) = 1
)
SELECT
  CASE WHEN budget_action = 'clamped' THEN 'clamped' END AS kind,
  call_id AS group_key,
  NULL AS ticket_id,
  [{call_id: call_id, nano: cost_nano}] AS calls,
  to_json({
    cut_call_id: call_id, again_call_id: again_call_id, cut_max: max_output_tokens, again_max: again_max,
    after_s: after_s
  }) AS numbers,
  format(
    'An answer was cut at {} tokens, and asked for again {} s later with {}.',
    max_output_tokens, CAST(round(after_s) AS BIGINT), coalesce(concat('at most ', again_max), 'no maximum')
  ) AS sentence
FROM pairs
