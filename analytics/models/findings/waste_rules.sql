-- The rules of waste, how sure their findings proved to be, and in which order they claim. One row per rule.
-- @rule: W01 … W18
-- @relation: Relation with its findings; its file says what it looks for
-- @title: What it finds
-- @claim_order: Of several rules that found a call the first claims it; of those with the same number, the one with more money, then the first by name; NULL for those that never claim
-- @rule_version: 1, with a mark behind it where its thresholds are not the shipped ones
-- @parameters: Its thresholds, as JSON
-- @accepted: Findings that people accepted, whatever became of them later
-- @dismissed: Findings that people dismissed
-- @precision: Accepted findings among those that people judged; NULL until one was
WITH rules(rule, relation, title, claim_order) AS (
  VALUES
    ('W01', 'w01_duplicate', 'Duplicate', 7),
    ('W02', 'w02_retry_storm', 'Retry storm', 3),
    ('W03', 'w03_agent_loop', 'Agent loop', 2),
    ('W04', 'w04_billed_failure', 'Billed failure', 1),
    ('W05', 'w05_truncated', 'Truncated, asked again', 6),
    ('W06', 'w06_cache_miss', 'Cache miss', 12),
    ('W07', 'w07_dead_cache_write', 'Dead cache write', 12),
    ('W08', 'w08_context_bloat', 'Context bloat', 12),
    ('W09', 'w09_idle_tools', 'Idle tools', 12),
    ('W10', 'w10_overpowered', 'Overpowered model', NULL),
    ('W11', 'w11_excess_reasoning', 'Excess reasoning', 12),
    ('W12', 'w12_clockwork', 'Clockwork', 4),
    ('W13', 'w13_runaway', 'Runaway', 5),
    ('W14', 'w14_ghost_ticket', 'Ghost ticket', 8),
    ('W15', 'w15_dead_work', 'Dead work', 10),
    ('W16', 'w16_reverted_work', 'Reverted work', 9),
    ('W17', 'w17_after_done', 'Spend after done', 11),
    ('W18', 'w18_tag_stuffing', 'Tag stuffing', NULL)
),
reviews AS (
  SELECT rule, count(*) FILTER (state = 'accepted') AS accepted, count(*) FILTER (state = 'dismissed') AS dismissed
  FROM waste_verdicts
  GROUP BY rule
)
SELECT
  rule, relation, title, claim_order,
  map_extract_value(versions, rule) AS rule_version,
  map_extract_value(parameters, rule) AS parameters,
  coalesce(accepted, 0) AS accepted,
  coalesce(dismissed, 0) AS dismissed,
  round(accepted / nullif(accepted + dismissed, 0), 3) AS precision
FROM rules LEFT JOIN reviews USING (rule) CROSS JOIN waste_settings
