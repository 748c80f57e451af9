-- Yardsticks of a quarter that are not written down yet.
SELECT quarter, repo, median_lines, units, CAST($at AS TIMESTAMP) AS frozen_at
FROM size_yardsticks
WHERE quarter = $quarter AND frozen_at IS NULL
ORDER BY repo NULLS FIRST
