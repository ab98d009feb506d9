# Evaluates the formula (and, with a second argument, the Brewfile) against what Homebrew documents of its language, and
# prints what it says as JSON. Any other word of it is an error. PREFIX is where etc, var and bin are.
require "json"
require "pathname"
require "fileutils"

PREFIX = Pathname(ENV.fetch("PREFIX"))
CHECKOUT = Pathname(ENV.fetch("CHECKOUT"))
SAID = { resources: {}, depends_on: [], service: {}, installed: [], ran: [] }

module Language; module Python; module Virtualenv; end; end; end

class Pathname
  # Homebrew adds this: copies into the directory, and keeps what a user has edited.
  def install(*names)
    mkpath
    names.each do |name|
      FileUtils.cp(CHECKOUT/name, self)
      SAID[:installed] << (self/name).to_s
    end
  end
end

module Places
  def etc = PREFIX/"etc"
  def var = PREFIX/"var"
  def bin = PREFIX/"bin"
  def opt_bin = PREFIX/"bin"
end

class Resource
  def url(value) = @url = value
  def sha256(value) = @sha256 = value
  def to_h = { url: @url, sha256: @sha256 }
end

class Service
  include Places
  WORDS = [:run, :keep_alive, :working_dir, :log_path, :error_log_path, :environment_variables, :process_type].freeze
  WORDS.each { |word| define_method(word) { |value| SAID[:service][word] = value } }
  def std_service_path_env = "#{PREFIX}/bin:/usr/bin:/bin"
end

class Formula
  include Places

  class << self
    [:desc, :license, :homepage, :url, :sha256].each { |word| define_method(word) { |value| SAID[word] = value } }
    def head(url, using:, branch:) = SAID[:head] = { url: url, using: using, branch: branch }
    def depends_on(what) = SAID[:depends_on] << (what.is_a?(Hash) ? what.first.map(&:to_s).join(" => ") : what)

    def resource(name, &block)
      found = Resource.new
      found.instance_eval(&block)
      raise "#{name} is there twice" if SAID[:resources].key?(name)

      SAID[:resources][name] = found.to_h
    end

    def service(&block) = Service.new.instance_eval(&block)
    def test(&block) = define_method(:run_test, &block)
  end

  def virtualenv_install_with_resources(using:) = SAID[:using] = using
  # Homebrew runs it once for each shell, with the shell's name behind it.
  def generate_completions_from_executable(*command, shells:)
    SAID[:completions] = shells.to_h { |shell| [shell, shell_output([*command, shell].join(" "))] }
  end

  def shell_output(command)
    SAID[:ran] << command
    output = `#{command}`
    raise "#{command} failed" unless $?.success?

    output
  end

  def system(*command)
    SAID[:ran] << command.join(" ")
    raise "#{command} failed" unless Kernel.system(*command.map(&:to_s), out: :err)
  end

  def assert_match(expected, text)
    raise "#{text} does not match #{expected}" unless expected === text || text.include?(expected.to_s)
  end
end

load ARGV[0]
formula = Appliance.new
formula.install
SAID[:caveats] = formula.caveats
formula.run_test
if ARGV[1]
  SAID[:brewfile] = []
  bundle = Object.new
  bundle.define_singleton_method(:tap) { |name, url| SAID[:brewfile] << [:tap, name, url] }
  bundle.define_singleton_method(:brew) { |name, **options| SAID[:brewfile] << [:brew, name, options] }
  bundle.instance_eval(File.read(ARGV[1]), ARGV[1])
end
puts JSON.generate(SAID)
