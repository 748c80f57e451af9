-- What people said of findings. One row per review.
-- @reviewed_at: When it was said, UTC
-- @reviewed_by: Who said it: a key, or a user of the machine
-- @finding_id: Finding that it was about
-- @rule: Rule that found it
-- @group_key: What makes it one finding: the review holds for it under any version of the rule
-- @state: accepted, dismissed, or new: to be looked at again
-- @reason: Why it was dismissed: intended, test, wrong_tag, false_positive, other
-- @note: What else was said
-- @line: Place of the review in the file
SELECT
  make_timestamp("at") AS reviewed_at, "by" AS reviewed_by, finding_id, rule, group_key, state, reason, note,
  row_number() OVER () AS line
FROM read_json(
  'lake:findings/reviews.jsonl', format = 'newline_delimited', ignore_errors = true,
  columns = {
    "at": 'BIGINT', "by": 'VARCHAR', finding_id: 'VARCHAR', rule: 'VARCHAR', group_key: 'VARCHAR', state: 'VARCHAR',
    reason: 'VARCHAR', note: 'VARCHAR'
  }
)
WHERE rule IS NOT NULL
