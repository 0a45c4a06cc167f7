-- Made-up orders of three shops, one schema each: 600 customers per shop, 120 items, two years.
-- Customers come in six tastes, so that there is something to learn. Always the same rows.
DO $$ BEGIN PERFORM setseed(0.25); END $$;

CREATE TABLE public.customers AS
SELECT shop, format('%s-c%s', shop, lpad(num::text, 4, '0')) AS customer, num % 6 AS taste,
       4 + floor(random() * 12)::int AS n_orders
FROM unnest(ARRAY['alpha', 'beta', 'gamma']) AS shop, generate_series(1, 600) AS num;

CREATE TABLE public.all_orders AS
SELECT shop, customer,
       format('item-%s', lpad((
           CASE WHEN random() < 0.8 THEN taste * 20 + floor(power(random(), 2) * 20)
                ELSE floor(random() * 120) END
       )::int::text, 3, '0')) AS sku,
       timestamp '2024-01-01' + random() * interval '730 days' AS sold_at
FROM public.customers, LATERAL generate_series(1, n_orders);

CREATE SCHEMA alpha;
CREATE SCHEMA beta;
CREATE SCHEMA gamma;
CREATE TABLE alpha.orders AS
    SELECT customer, sku, sold_at FROM public.all_orders WHERE shop = 'alpha';
CREATE TABLE beta.orders AS
    SELECT customer, sku, sold_at FROM public.all_orders WHERE shop = 'beta';
CREATE TABLE gamma.orders AS
    SELECT customer, sku, sold_at FROM public.all_orders WHERE shop = 'gamma';
DROP TABLE public.all_orders, public.customers;

-- Each shop's silo reads its own schema and nothing else.
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA alpha TO alpha;
GRANT USAGE ON SCHEMA beta TO beta;
GRANT USAGE ON SCHEMA gamma TO gamma;
GRANT SELECT ON ALL TABLES IN SCHEMA alpha TO alpha;
GRANT SELECT ON ALL TABLES IN SCHEMA beta TO beta;
GRANT SELECT ON ALL TABLES IN SCHEMA gamma TO gamma;
