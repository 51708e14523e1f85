# SPDX-License-Identifier: GPL-2.0-or-later
use strict;
use warnings;
use POSIX ();
our @keep;

# A fresh scalar each time: vec() makes it as long as wanted.
sub leak { my ($k) = @_; my $s; vec($s, 1000000 + 1000 * $k, 8) = 1; push @keep, \$s; return 1 }
sub recurse { my ($n, $k) = @_; return $n ? recurse($n - 1, $k) : leak($k) }

package Guard;
sub new { my ($class, $k) = @_; return bless {k => $k}, $class }
sub DESTROY { my ($self) = @_; main::leak($self->{k}) }

package main;
leak(1);
recurse(20, 2);
my $once = 0;
my @sorted = sort { leak(3) unless $once++; $a <=> $b } (3, 1, 2);
eval { my $g = Guard->new(4); die "x\n" };
leak(5) if $@;
(my $text = "axb") =~ s/x/leak(6)/e;
eval "leak(7)";
my @mapped = map { leak(8) } (1);
local $SIG{USR1} = sub { leak(9) };
kill 'USR1', $$;
leak(10);
{
	local $SIG{__WARN__} = sub { leak(11) };
	warn "x";
}
tie my $tied, 'Tied';
my $read = $tied;
POSIX::_exit(0);

package Tied;
sub TIESCALAR { my $x; return bless \$x }
sub FETCH { main::leak(12) }
