-- Rows that nobody reads: DuckDB takes a listing's first file for typical, and plans joins badly when it has no rows.
INSERT INTO segment_entries BY NAME
SELECT CAST($day AS DATE) AS day, CAST($correction AS VARCHAR) AS correction FROM range(10000)
