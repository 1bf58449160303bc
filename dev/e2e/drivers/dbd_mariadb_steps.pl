# DBD::MariaDB for Perl, over MariaDB Connector/C, by a socket file: over TLS that library does not name the server.
# Statements are prepared by the server.

use strict;
use warnings;
use DBI;
use Time::HiRes qw(time);

$| = 1;
my %facts = map { /^--([^=]+)=(.*)$/s ? ($1 => $2) : () } @ARGV;
my $LARGE = 20 << 20;

sub open_one {
    my (%more) = @_;
    my %dsn = (database => $facts{database}, mariadb_socket => $facts{socket}, mariadb_local_infile => 1, %more);
    my $dsn = 'DBI:MariaDB:' . join ';', map { "$_=$dsn{$_}" } sort keys %dsn;
    return DBI->connect($dsn, $facts{user}, undef, { RaiseError => 1, PrintError => 0, AutoCommit => 1,
        mariadb_server_prepare => 1, mariadb_server_prepare_disable_fallback => 1 });
}

sub same {
    my ($got, $wanted) = @_;
    $got = join ',', map { $_ // 'NULL' } @$got;
    die "$got and not $wanted" unless $got eq $wanted;
}

sub row { my ($db, $sql, @values) = @_; return [$db->selectrow_array($sql, undef, @values)] }

# As text, for what servers do not prepare.
sub plainly { my ($db, $sql) = @_; my $st = $db->prepare($sql, { mariadb_server_prepare => 0 }); $st->execute; return $st }

sub fails {
    my ($number, $work) = @_;
    eval { $work->(); 1 } and die 'it did not fail';
    die "$DBI::err and not $number: $DBI::errstr" unless $DBI::err == $number;
}

my $shared = open_one();

my @steps = (
    select => sub { same(row($shared, "SELECT 40 + 2, SUBSTRING_INDEX(CURRENT_USER(), '\@', 1)"), "42,$facts{user}") },
    prepared => sub {
        my $statement = $shared->prepare('SELECT ? * 2, ?, ?');
        for my $number (0 .. 49) {
            $statement->execute($number, 'text', undef);
            same([$statement->fetchrow_array], 2 * $number . ',text,NULL');
            $statement->finish;
        }
    },
    many_rows => sub {
        my $rows = $shared->selectall_arrayref("SELECT seq, REPEAT('x', 100) FROM seq_1_to_50000 WHERE seq > ?", undef, 0);
        same([scalar @$rows], '50000');
    },
    several_statements => sub {
        my $db = open_one(mariadb_multi_statements => 1);
        my $statement = plainly($db, 'SELECT 1; SELECT 2; DO 3');
        my @found = $statement->fetchrow_array;
        while ($statement->more_results) {
            push @found, $statement->fetchrow_array if $statement->{NUM_OF_FIELDS};
        }
        same(\@found, '1,2');
    },
    local_file => sub {
        plainly($shared, 'CREATE OR REPLACE TEMPORARY TABLE loaded (n INT, t VARCHAR(20))');
        plainly($shared, "LOAD DATA LOCAL INFILE '$facts{file}' INTO TABLE loaded FIELDS TERMINATED BY ','");
        same(row($shared, 'SELECT COUNT(*), MAX(n) FROM loaded'), '20000,19999');
    },
    packets_over_16_mib => sub {
        my $db = open_one(mariadb_max_allowed_packet => 64 << 20);
        same(row($db, 'SELECT LENGTH(?)', 'x' x $LARGE), $LARGE);
        my ($text) = $db->selectrow_array("SELECT REPEAT('y', $LARGE)");
        die length $text unless $text eq 'y' x $LARGE;
    },
    compression_asked_for => sub {
        my $db = open_one(mariadb_compression => 1);
        my $row = plainly($db, "SHOW SESSION STATUS LIKE 'Compression'")->fetchrow_arrayref;
        same($row, 'Compression,OFF');
    },
    error_midway => sub {
        my $sql = "SELECT seq, REPEAT('x', 1000), IF(seq < 5000, 1, (SELECT 1 UNION SELECT 2)) FROM seq_1_to_10000";
        fails(1242, sub { $shared->selectall_arrayref($sql) });
        same(row($shared, 'SELECT 1'), '1');
    },
    other_database => sub {
        plainly($shared, 'USE archive');
        same(row($shared, 'SELECT DATABASE()'), 'archive');
        plainly($shared, "USE `$facts{database}`");
    },
    ping => sub { $shared->ping or die 'no answer' },
    kill_by_number => sub {
        my $busy = open_one();
        my ($number) = $busy->selectrow_array('SELECT CONNECTION_ID()');
        my $child = fork // die "fork: $!";
        if (!$child) {
            $_->{AutoInactiveDestroy} = 1, $_->{InactiveDestroy} = 1 for $busy, $shared;
            sleep 1;
            plainly(open_one(), "KILL QUERY $number");
            require POSIX;
            POSIX::_exit(0);
        }
        my $begun = time;
        fails(1317, sub { row($busy, 'SELECT COUNT(*) FROM seq_1_to_1000000000 a, seq_1_to_1000000000 b') });
        waitpid $child, 0;
        die 'it took too long' if time - $begun > 20;
    },
);

while (my ($name, $step) = splice @steps, 0, 2) {
    if (eval { $step->(); 1 }) {
        print "ok $name\n";
    } else {
        (my $why = "$@") =~ s/\n/ /g;
        print "failed $name $why\n";
    }
}
