-- What people said last of what was found. One row per rule and group.
SELECT * EXCLUDE (line)
FROM waste_reviews
QUALIFY row_number() OVER (PARTITION BY rule, group_key ORDER BY reviewed_at DESC, line DESC) = 1
