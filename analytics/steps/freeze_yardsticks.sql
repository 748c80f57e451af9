-- Yardsticks of a quarter that are not written down yet.
SELECT quarter, repo, median_lines, units, CAST($at AS TIMESTAMP) AS frozen_at
FROM yardsticks
WHERE quarter = $quarter AND NOT is_frozen
ORDER BY repo NULLS FIRST
