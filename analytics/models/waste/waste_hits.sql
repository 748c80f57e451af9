-- What the rules of waste find now. One row per finding.
-- @finding_id: Hash of rule, its version and group_key: the same each time
-- @kind: A part of the rule's findings that is shown apart
-- @group_key: What makes it one finding
-- @ticket_id: Ticket that it is about, of rules about tickets
-- @calls: The calls, with what is recoverable of each, nano-USD
-- @numbers: The numbers that were compared, as JSON
-- @sentence: What was found, in words
SELECT
  left(sha256(concat_ws('|', rule, rule_version, group_key)), 16) AS finding_id,
  rule, rule_version, parameters, CAST(kind AS VARCHAR) AS kind, group_key, CAST(ticket_id AS VARCHAR) AS ticket_id,
  calls, CAST(numbers AS VARCHAR) AS numbers, sentence
FROM (
  SELECT 'W01' AS rule, * FROM w01_duplicate
  UNION ALL BY NAME
  SELECT 'W02' AS rule, * FROM w02_retry_storm
  UNION ALL BY NAME
  SELECT 'W03' AS rule, * FROM w03_agent_loop
  UNION ALL BY NAME
  SELECT 'W04' AS rule, * FROM w04_billed_failure
  UNION ALL BY NAME
  SELECT 'W05' AS rule, * FROM w05_truncated
  UNION ALL BY NAME
  SELECT 'W06' AS rule, * FROM w06_cache_miss
  UNION ALL BY NAME
  SELECT 'W07' AS rule, * FROM w07_dead_cache_write
  UNION ALL BY NAME
  SELECT 'W08' AS rule, * FROM w08_context_bloat
  UNION ALL BY NAME
  SELECT 'W09' AS rule, * FROM w09_idle_tools
  UNION ALL BY NAME
  SELECT 'W10' AS rule, * FROM w10_overpowered
  UNION ALL BY NAME
  SELECT 'W11' AS rule, * FROM w11_excess_reasoning
  UNION ALL BY NAME
  SELECT 'W12' AS rule, * FROM w12_clockwork
  UNION ALL BY NAME
  SELECT 'W13' AS rule, * FROM w13_runaway
  UNION ALL BY NAME
  SELECT 'W14' AS rule, * FROM w14_ghost_ticket
  UNION ALL BY NAME
  SELECT 'W15' AS rule, * FROM w15_dead_work
  UNION ALL BY NAME
  SELECT 'W16' AS rule, * FROM w16_reverted_work
  UNION ALL BY NAME
  SELECT 'W17' AS rule, * FROM w17_after_done
  UNION ALL BY NAME
  SELECT 'W18' AS rule, * FROM w18_tag_stuffing
) JOIN waste_rules USING (rule)
