-- Each row is there once.
SELECT "x_RowId", count(*) FROM exported GROUP BY ALL HAVING count(*) > 1
